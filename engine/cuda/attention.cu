// Attention by tiles: of the probabilities there is only ever a tile, in shared memory (Dao et al., FlashAttention,
// arXiv 2205.14135 and 2307.08691). A block makes a tile of the rows and columns of one result; it goes through the
// other rows in order, so that results have one order of summation, without atomics.
#include <algorithm>

#include "engine/cuda/families.h"
#include "engine/cuda/reduce.cuh"
#include "engine/cuda/tile.cuh"
#include "engine/kernels/special_functions.h"

namespace fastntk::FASTNTK_GPU {

/// Rows and columns that a thread has of a tile, and those of a tile.
template <class T>
constexpr int own = pack_width<T>;
template <class T>
constexpr int tile = tile_side * own<T>;

template <class T>
using OwnTile = T[own<T>][own<T>];

/// The matrix of one head.
template <class T>
struct Matrix {
  const T* data;
  int stride, rows, columns;  // of 32 bits: registers are scarce
  bool aligned;               // every row, and everything that is a pack from there
  /// A pack of columns; zeros beyond the matrix.
  __device__ Pack<T, pack_width<T>> operator()(int row, int column) const {
    return load_pack(data + int64_t{row} * stride + column, row < rows ? columns - column : 0, aligned);
  }
};

/// The matrices [items…, rows, columns] of all heads.
template <class T>
struct Heads {
  Places<1> places;
  Matrix<T> first;

  explicit Heads(const Tensor& t)
      : places(t.shape().leading(t.rank() - 2), {t.strides().leading(t.rank() - 2)}),
        first{elements<T>(t), narrow(t.strides()[-2]), narrow(t.extent(-2)), narrow(t.extent(-1)), false} {
    first.aligned = aligned_to_packs(first.data) && first.stride % pack_width<T> == 0;
    for (int axis = 0; axis < places.axes; axis++)
      first.aligned = first.aligned && places.stride[0][axis] % pack_width<T> == 0;
  }
  __device__ Matrix<T> operator()(int64_t item) const {
    Matrix<T> matrix = first;
    matrix.data += places(item).of[0];
    return matrix;
  }
};

/// The matrices that a kernel writes, a tile each time.
template <class T>
struct Results {
  T* data;
  Heads<T> heads;

  explicit Results(Tensor& t) : data(elements_to_write<T>(t)), heads(t) {}
  int row_tiles() const { return tiles(heads.first.rows); }
  int column_tiles() const { return tiles(heads.first.columns); }
  static int tiles(int lines) { return lines / tile<T> + (lines % tile<T> != 0 ? 1 : 0); }
  __device__ void write(int64_t item, int row, int column, const OwnTile<T>& values) const {
    T* const matrix = data + heads.places(item).of[0];
    const int x = column + tile_line<T>(threadIdx.x, 0);
    for (int i = 0; i < own<T>; i++) {
      const int y = row + tile_line<T>(threadIdx.y, i);
      if (y < heads.first.rows)
        store_pack(matrix + int64_t{y} * heads.first.stride + x, pack_of(values[i], 0), heads.first.columns - x,
                   heads.first.aligned);
    }
  }
};

/// Of a row of S: P = exp(S − shift) / total.
template <class T>
struct RowStatistics {
  T shift, total;
};

/// Cotangents of a stack that a block takes together: as many as two blocks of a multiprocessor have registers for.
constexpr int most_cotangents = 2;

/// What the threads of a block share.
template <class T>
struct Shared {
  Panel<T, tile<T>> left, right;
  Panel<T, tile<T>, tile<T>> weights;    // by column, then row
  RowStatistics<T> statistics[tile<T>];  // of the queries of a tile, as `dots`
  T dots[most_cotangents][tile<T>];

  /// product[i][j] = Σ_d a[row + i, d] b[column + j, d]
  __device__ void multiply_rows(const Matrix<T>& a, int row, const Matrix<T>& b, int column, OwnTile<T>& product) {
    for (auto& line : product)
      for (T& value : line) value = 0;
    int term = 0;
    do {  // once where there are no terms, too: its barriers keep what is before from what follows
      AlongTerms<T, tile<T>> from_a, from_b;
      from_a.load(term, [&](int, int line, int d) { return a(row + line, d); });
      from_b.load(term, [&](int, int line, int d) { return b(column + line, d); });
      __syncthreads();  // the panels may still be read
      from_a.store(left);
      from_b.store(right);
      __syncthreads();
      multiply(left, 0, right, product);
      term += tile_depth;
    } while (term < a.columns);
  }
  /// Sets the weights of a tile, when no thread needs those before any more.
  __device__ void set_weights(const OwnTile<T>& w) {
    for (int j = 0; j < own<T>; j++) {
      Pack<T, own<T>> column;
      for (int i = 0; i < own<T>; i++) column.of[i] = w[i][j];
      *reinterpret_cast<Pack<T, own<T>>*>(&weights.of[tile_line<T>(threadIdx.x, j)][tile_line<T>(threadIdx.y, 0)]) =
          column;
    }
  }
  /// sum[i][j] += Σ_r weights[i, r] b[row + r, column + j]
  __device__ void add_weighted(const Matrix<T>& b, int row, int column, OwnTile<T>& sum) {
    for (int r = 0; r < tile<T> && row + r < b.rows; r += tile_depth) {
      AlongLines<T, tile<T>> from_b;
      from_b.load(r, [&](int line, int at) { return b(row + at, column + line); });
      __syncthreads();  // the panel may still be read, and weights be written
      from_b.store(right);
      __syncthreads();
      multiply(weights, r, right, sum);
    }
  }
};

/// The values of the sixteen threads that share rows of a tile, joined.
template <class Join, class T>
__device__ T join_row(T v) {
  for (int distance = tile_side / 2; distance > 0; distance /= 2)
    v = Join::join(v, __shfl_xor_sync(all_lanes, v, distance));
  return v;
}

/// y = P v; statistics [items, T] of the rows where not null.
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    attention_kernel(int64_t blocks, Heads<T> all_q, Heads<T> all_k, Heads<T> all_v, T scale, Results<T> y,
                     int row_tiles, int column_tiles, RowStatistics<T>* statistics) {
  FASTNTK_SHARED(Shared<T>, shared);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int column = static_cast<int>(block % column_tiles) * tile<T>;
    const int row = static_cast<int>(block / column_tiles % row_tiles) * tile<T>;
    const int64_t item = block / column_tiles / row_tiles;
    const Matrix<T> q = all_q(item), k = all_k(item), v = all_v(item);
    OwnTile<T> sum = {};
    T largest[own<T>], shift[own<T>], total[own<T>] = {};
    for (T& m : largest) m = Max::start<T>();
    for (int key = 0; key < k.rows; key += tile<T>) {
      OwnTile<T> s;
      shared.multiply_rows(q, row, k, key, s);
      for (int i = 0; i < own<T>; i++) {
        T m = Max::start<T>();
        for (int j = 0; j < own<T>; j++) {
          s[i][j] = key + tile_line<T>(threadIdx.x, j) < k.rows ? scale * s[i][j] : Max::start<T>();
          m = Max::join(m, s[i][j]);
        }
        m = Max::join(largest[i], join_row<Max>(m));
        shift[i] = softmax_shift(m);
        const T before = special::exp(largest[i] - shift[i]);
        largest[i] = m;
        T of_tile = 0;
        for (int j = 0; j < own<T>; j++) {
          s[i][j] = special::exp(s[i][j] - shift[i]);
          of_tile += s[i][j];
          sum[i][j] *= before;
        }
        total[i] = total[i] * before + join_row<Sum>(of_tile);
      }
      shared.set_weights(s);
      shared.add_weighted(v, key, column, sum);
    }
    for (int i = 0; i < own<T>; i++) {
      for (int j = 0; j < own<T>; j++) sum[i][j] /= total[i];
      const int query = row + tile_line<T>(threadIdx.y, i);
      if (statistics && column == 0 && threadIdx.x == 0 && query < q.rows)
        statistics[item * q.rows + query] = {shift[i], total[i]};
    }
    y.write(item, row, column, sum);
  }
}

template <class T>
void attention_typed(const Tensor& q, const Tensor& k, const Tensor& v, double scale, Tensor& y,
                     RowStatistics<T>* statistics) {
  const Results<T> to(y);
  const int column_tiles = std::max(1, to.column_tiles());  // statistics are also of no columns
  const int64_t blocks = q.shape().leading(q.rank() - 2).elements() * to.row_tiles() * column_tiles;
  if (blocks == 0) return;
  launch({blocks_for(blocks)}, {tile_side, tile_side}, attention_kernel<T>, blocks, Heads<T>(q), Heads<T>(k),
         Heads<T>(v), static_cast<T>(scale), to, to.row_tiles(), column_tiles, statistics);
}

void attention(const Backend::Attention& arguments) {
  for_floating(arguments.q.dtype(), "attention", [&](auto zero) {
    attention_typed<decltype(zero)>(arguments.q, arguments.k, arguments.v, arguments.scale, arguments.y, nullptr);
  });
}

/// What the kernels of the transposed map read. `dots`: ⟨c, y⟩ = ⟨P, c vᵀ⟩ by row, [stack, items, T].
template <class T>
struct TransposedArguments {
  Heads<T> q, k, v, cotangent;
  T scale;
  int items, stack;
  const RowStatistics<T>* statistics;
  const T* dots;
};

enum class Gradient : uint8_t { q, k, v };

/// With W = α P ⊙ (c vᵀ − ⟨P, c vᵀ⟩): dq = W k, dk = Wᵀ q, dv = Pᵀ c. A block makes the tiles of a few cotangents,
/// which share P.
template <Gradient gradient, class T>
__global__ void __launch_bounds__(tile_threads, 2)
    attention_transposed_kernel(int64_t blocks, TransposedArguments<T> a, Results<T> out, int row_tiles,
                                int column_tiles) {
  FASTNTK_SHARED(Shared<T>, shared);
  const int groups = (a.stack + most_cotangents - 1) / most_cotangents;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int column = static_cast<int>(block % column_tiles) * tile<T>;
    const int row = static_cast<int>(block / column_tiles % row_tiles) * tile<T>;
    const int from = static_cast<int>(block / column_tiles / row_tiles % groups) * most_cotangents;
    const int item = static_cast<int>(block / column_tiles / row_tiles / groups);
    const Matrix<T> q = a.q(item), k = a.k(item), v = a.v(item);
    const Matrix<T>&rows = gradient == Gradient::q ? q : k, &columns = gradient == Gradient::q ? k : q;
    OwnTile<T> sum[most_cotangents] = {};
    for (int other = 0; other < columns.rows; other += tile<T>) {
      const int first_query = gradient == Gradient::q ? row : other, query = first_query + tile_thread();
      if (tile_thread() < tile<T>) {
        const bool inside = query < q.rows;
        shared.statistics[tile_thread()] =
            inside ? a.statistics[int64_t{item} * q.rows + query] : RowStatistics<T>{0, 1};
        if (gradient != Gradient::v)
          for (int c = 0; c < most_cotangents && from + c < a.stack; c++)
            shared.dots[c][tile_thread()] =
                inside ? a.dots[(int64_t{from + c} * a.items + item) * q.rows + query] : T(0);
      }
      const auto query_of = [&](int i, int j) {
        return gradient == Gradient::q ? tile_line<T>(threadIdx.y, i) : tile_line<T>(threadIdx.x, j);
      };
      OwnTile<T> p;
      shared.multiply_rows(rows, row, columns, other, p);
      for (int i = 0; i < own<T>; i++)
        for (int j = 0; j < own<T>; j++) {
          const RowStatistics<T> at = shared.statistics[query_of(i, j)];
          const bool inside = other + tile_line<T>(threadIdx.x, j) < columns.rows;
          p[i][j] = inside ? special::exp(a.scale * p[i][j] - at.shift) / at.total : T(0);
        }
      if constexpr (gradient == Gradient::v) shared.set_weights(p);
      FASTNTK_UNROLL
      for (int c = 0; c < most_cotangents; c++) {
        if (from + c >= a.stack) continue;
        const int64_t stacked = int64_t{from + c} * a.items + item;
        const Matrix<T> cotangent = a.cotangent(stacked);
        if constexpr (gradient != Gradient::v) {
          OwnTile<T> w;
          shared.multiply_rows(gradient == Gradient::q ? cotangent : v, row, gradient == Gradient::q ? v : cotangent,
                               other, w);
          for (int i = 0; i < own<T>; i++)
            for (int j = 0; j < own<T>; j++) w[i][j] = a.scale * (p[i][j] * (w[i][j] - shared.dots[c][query_of(i, j)]));
          shared.set_weights(w);
        }
        shared.add_weighted(gradient == Gradient::v ? cotangent : columns, other, column, sum[c]);
      }
    }
    FASTNTK_UNROLL
    for (int c = 0; c < most_cotangents; c++)
      if (from + c < a.stack) out.write(int64_t{from + c} * a.items + item, row, column, sum[c]);
  }
}

/// Term i of output number o, a row of a cotangent with a row of y [items, T, e].
template <class T>
struct Dot {
  Heads<T> cotangent;
  const T* y;
  Divisor rows, points;
  __device__ double operator()(int64_t o, int64_t i) const {
    const Matrix<T> c = cotangent(o / rows);
    return static_cast<double>(c.data[o % rows * c.stride + i]) * static_cast<double>(y[o % points * c.columns + i]);
  }
};

template <Gradient gradient, class T>
void gradient_typed(const TransposedArguments<T>& a, Tensor* out) {
  if (!out || out->elements() == 0) return;
  const Results<T> to(*out);
  const int64_t groups = (a.stack + most_cotangents - 1) / most_cotangents;
  const int64_t blocks = a.items * groups * to.row_tiles() * to.column_tiles();
  launch({blocks_for(blocks)}, {tile_side, tile_side}, attention_transposed_kernel<gradient, T>, blocks, a, to,
         to.row_tiles(), to.column_tiles());
}

template <class T>
void attention_transposed_typed(const Backend::AttentionTransposed& arguments) {
  const auto& [q, k, v, scale, c, dq, dk, dv] = arguments;
  const int64_t queries = q.extent(-2), stack = c.extent(0), rows = c.elements() / c.extent(-1), points = rows / stack;
  // dv needs the statistics alone; v may not be there.
  const Shape heads = q.shape().leading(q.rank() - 2);
  const Tensor values = dq || dk ? v : Tensor(heads + Shape{0, 0}, q.dtype(), device);
  Tensor y(heads + Shape{queries, values.extent(-1)}, q.dtype(), device), dots(Shape{rows}, q.dtype(), device);
  const Buffer memory(static_cast<size_t>(points) * sizeof(RowStatistics<T>), device);
  auto* const statistics = memory.as<RowStatistics<T>>();
  attention_typed<T>(q, k, values, scale, y, statistics);
  if (dq || dk)
    reduce<Sum>(Neighbours::along, rows, c.extent(-1), Dot<T>{Heads<T>(c), elements<T>(y), queries, points},
                StoreAs<T>{elements_to_write<T>(dots)});
  const TransposedArguments<T> a{
      Heads<T>(q),   Heads<T>(k), Heads<T>(values), Heads<T>(c), static_cast<T>(scale), narrow(points / queries),
      narrow(stack), statistics,  elements<T>(dots)};
  gradient_typed<Gradient::q>(a, dq);
  gradient_typed<Gradient::k>(a, dk);
  gradient_typed<Gradient::v>(a, dv);
}

void attention_transposed(const Backend::AttentionTransposed& arguments) {
  if (arguments.cotangent.elements() == 0) {
    for (Tensor* const out : {arguments.dq, arguments.dk, arguments.dv})
      if (out) fill(*out, 0);
    return;
  }
  for_floating(arguments.q.dtype(), "attention",
               [&](auto zero) { attention_transposed_typed<decltype(zero)>(arguments); });
}

}  // namespace fastntk::FASTNTK_GPU
