#include "engine/cpu/isa/gemm.h"

#include "engine/cpu/isa/vector.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

// With two vectors per row: 24 accumulators of 32 registers (14 x 2 fit too, but then the addresses of the rows do
// not), 12 of 16.
constexpr int tile_rows = vector_registers == 32 ? 12 : 6;

// Steps of depth for which one cache line is fetched ahead: few enough in flight at a time that no load waits for them.
constexpr int64_t fetch_steps = 8;
constexpr int64_t most_lines = 64;  // for one tile, whose depth is at most 512

// Walks over the lines of two ranges.
template <class T>
class Fetcher {
 public:
  Fetcher(const Ahead<T>& first, const Ahead<T>& second) : now_(first), next_(second) {}
  int64_t left() const { return now_.count + next_.count; }
  // The addresses of the next `count` lines; as many as there are.
  int64_t take(int64_t count, const T** out) {
    Ahead<T> now = now_;  // and not the member, which a store to `out` might change for all the compiler knows
    int64_t n = 0, column = column_;
    for (; n < count; n++) {
      if (now.count == 0) {
        if (next_.count == 0) break;
        now = next_, next_.count = 0, column = 0;
      }
      out[n] = now.start + column * line;
      now.count--;
      if (++column == now.row_lines) column = 0, now.start += now.stride;
    }
    now_ = now, column_ = column;
    return n;
  }

 private:
  static constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  Ahead<T> now_, next_;
  int64_t column_ = 0;
};

// One register tile: R rows by V vectors, the last vector holding only `last` elements. Every loop over accumulators
// must be unrolled, or the compiler keeps them in memory.
template <class T, int R, int V>
__attribute__((noinline)) void tile(int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
                                    int64_t last, bool add, const T* const* ahead) {
  constexpr int L = lanes<T>;
  Vector<T> sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      sum[r][v] = Vector<T>{};
      __builtin_prefetch(c + r * ldc + v * L, 1);
    }
  const auto step = [&](int64_t k) __attribute__((always_inline)) {
    Vector<T> row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) row[v] = load(b + v * L);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vector<T> x = splat(a[r * lda + k]);
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) sum[r][v] += x * row[v];
    }
    b += ldb;
  };
  int64_t k = 0;
#pragma GCC unroll 1
  for (; k + fetch_steps <= depth; k += fetch_steps) {
    __builtin_prefetch(*ahead++, 0, 2);
#pragma GCC unroll 8
    for (int i = 0; i < fetch_steps; i++) step(k + i);
  }
#pragma GCC unroll 1
  for (; k < depth; k++) step(k);
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      T* const p = c + r * ldc + v * L;
      if (v < V - 1 || last == L)
        store(p, add ? load(p) + sum[r][v] : sum[r][v]);
      else
        store_first(p, add ? load_first(p, last) + sum[r][v] : sum[r][v], last);
    }
}

template <class T, int V, int R = tile_rows>
inline void tile_of(int64_t rows, int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc,
                    int64_t last, bool add, const T* const* ahead) {
  if (rows == R)
    tile<T, R, V>(depth, a, lda, b, ldb, c, ldc, last, add, ahead);
  else if constexpr (R > 1)
    tile_of<T, V, R - 1>(rows, depth, a, lda, b, ldb, c, ldc, last, add, ahead);
}

template <class T>
void multiply(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
              int64_t ldc, bool add, const Ahead<T>& first, const Ahead<T>& second) {
  constexpr int64_t L = lanes<T>;
  // Tiles of nearly equal height: a last tile of one row would wait for the latency of each multiply-add.
  const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
  Fetcher<T> fetcher(first, second);
  const T* lines[most_lines];
  const int64_t room = depth / fetch_steps;
  for (int64_t t = 0, from = 0; t < tiles; t++) {
    const int64_t height = rows / tiles + (t < rows % tiles);
    const T* const x = a + from * lda;
    T* const y = c + from * ldc;
    const int64_t wanted = (fetcher.left() + tiles - t - 1) / (tiles - t);
    for (int64_t i = fetcher.take(wanted < room ? wanted : room, lines); i < room; i++) lines[i] = c;
    if (columns > L)
      tile_of<T, 2>(height, depth, x, lda, b, ldb, y, ldc, columns - L, add, lines);
    else
      tile_of<T, 1>(height, depth, x, lda, b, ldb, y, ldc, columns, add, lines);
    from += height;
  }
}

template <class T>
void copy(int64_t rows, int64_t columns, const T* in, int64_t in_stride, T* out, int64_t out_stride) {
  constexpr int64_t L = lanes<T>;
  for (int64_t i = 0; i < rows; i++, in += in_stride, out += out_stride) {
    int64_t j = 0;
    for (; j + L <= columns; j += L) store(out + j, load(in + j));
    if (j < columns) store(out + j, load_first(in + j, columns - j));
  }
}

// The transpose of an L x L block in registers by log2(L) perfect shuffles: each rotates the bits of (row, column) by
// one.
template <class T>
inline __attribute__((always_inline)) void transpose_block(Vector<T> (&v)[lanes<T>]) {
  constexpr int L = lanes<T>;
  using Index = decltype(v[0] < v[0]);
  Index low{}, high{};
#pragma GCC unroll 16
  for (int i = 0; i < L; i++) low[i] = i / 2 + i % 2 * L, high[i] = low[i] + L / 2;
#pragma GCC unroll 4
  for (int stride = 1; stride < L; stride *= 2) {
    Vector<T> w[L];
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; i++) {
      w[2 * i] = shuffle<T>(v[i], v[i + L / 2], low);
      w[2 * i + 1] = shuffle<T>(v[i], v[i + L / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) v[i] = w[i];
  }
}

template <class T>
void transpose(int64_t rows, int64_t columns, const T* in, int64_t in_stride, T* out, int64_t out_stride) {
  constexpr int64_t L = lanes<T>;
  for (int64_t i = 0; i < rows; i += L)
    for (int64_t j = 0; j < columns; j += L) {
      const int64_t height = rows - i < L ? rows - i : L, width = columns - j < L ? columns - j : L;
      const T* const x = in + i * in_stride + j;
      T* const y = out + j * out_stride + i;
      Vector<T> v[L];
#pragma GCC unroll 16
      for (int r = 0; r < L; r++)
        v[r] = r >= height ? Vector<T>{} : width == L ? load(x + r * in_stride) : load_first(x + r * in_stride, width);
      transpose_block<T>(v);
#pragma GCC unroll 16
      for (int c = 0; c < L; c++)
        if (c < width) store(y + c * out_stride, v[c]);
    }
}

template <class T>
constexpr GemmKernels<T> kernels = {tile_rows, lanes<T>, multiply<T>, copy<T>, transpose<T>};

}  // namespace

const GemmTable gemm_table = {kernels<float>, kernels<double>};

}  // namespace fastntk::cpu::FASTNTK_ISA
