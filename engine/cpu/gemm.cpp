#include "engine/cpu/gemm.h"

#include <algorithm>
#include <functional>
#include <iterator>

#include "engine/cpu/isa/gemm.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

// Rows of A that one task takes: with the block above, 256 KB of float32 for level 2.
constexpr int64_t row_block = 252;
// Blocks of depth whose sums follow each other while a block of C, one panel wide, is in the cache.
constexpr int64_t chunk_blocks = 3;
// The largest piece of B that gemm() packs at a time, in elements.
constexpr int64_t piece_depth = 16 * depth_block, piece_elements = int64_t{1} << 20;
// A block of A that serves at most so many panels of B is usually read where it is.
constexpr int64_t copy_panels = 8;
// The most rows of a product that is computed transposed.
constexpr int64_t turned_rows = 512;
// The most rows for which copying the panels of a B that is stored by rows costs a noticeable part of the product.
constexpr int64_t copied_rows = 48;
// Below this many multiply-adds (some ten microseconds) waking other threads does not pay.
constexpr int64_t worth_threads = int64_t{1} << 21;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <class T>
constexpr int64_t line = 64 / sizeof(T);  // elements of a cache line

template <class T>
const GemmKernels<T>& kernels() {
  const GemmTable& table = FASTNTK_DISPATCH(gemm_table);
  if constexpr (sizeof(T) == 4)
    return table.f32;
  else
    return table.f64;
}

template <class Body>
void run_tasks(int64_t tasks, bool threads, const Body& body) {
  if (threads) return parallel_for(tasks, std::cref(body));
  for (int64_t i = 0; i < tasks; i++) body(i);
}

// How the right operand of a product lies in memory.
enum class Layout {
  packed,    // panel by panel, as the kernels read it
  in_place,  // row by row, and read so
  copied,    // row by row; each task copies a block of a panel when it comes to it
};

// The right operand [k, n] of a product as the kernels take it: panels of two registers' width (the last one register
// wide if that is enough) by blocks of depth. Packed, the blocks follow each other, and in a block its panels, each row
// by row and padded with zeros.
template <class T>
struct Panels {
  int64_t k, n;
  const T* data;
  Layout layout = Layout::packed;
  int64_t row_stride = 0;  // unless packed
  const GemmKernels<T>& kernel = kernels<T>();

  int64_t width() const { return 2 * kernel.lanes; }
  int64_t count() const { return ceil_div(n, width()); }
  int64_t columns(int64_t panel) const { return std::min(width(), n - panel * width()); }
  int64_t depth(int64_t block) const { return std::min(depth_block, k - block * depth_block); }
  int64_t padded_columns(int64_t panel) const { return round_up(columns(panel), kernel.lanes); }
  int64_t stride(int64_t panel) const { return layout == Layout::packed ? padded_columns(panel) : row_stride; }
  const T* at(int64_t block, int64_t panel) const {
    const int64_t row = block * depth_block, column = panel * width();
    return data + (layout == Layout::packed ? row * round_up(n, kernel.lanes) + depth(block) * column
                                            : row * row_stride + column);
  }
  Ahead<T> lines(int64_t block, int64_t panel) const {
    const int64_t row_lines = ceil_div(columns(panel), line<T>);
    return {at(block, panel), depth(block) * row_lines, row_lines, stride(panel)};
  }
};

template <class T>
int64_t packed_elements(int64_t k, int64_t n) {
  return k * round_up(n, kernels<T>().lanes);
}

/// Packs op(B) [k, n] into `out`, packed_elements(k, n) long.
template <class T>
Panels<T> pack(bool transposed, int64_t k, int64_t n, const T* b, int64_t ldb, T* out) {
  const Panels<T> panels{k, n, out};
  run_tasks(panels.count(), k * n >= worth_threads / 16 && !in_parallel(), [&](int64_t p) {
    for (int64_t block = 0; block * depth_block < k; block++) {
      const int64_t row = block * depth_block, column = p * panels.width();
      const int64_t depth = panels.depth(block), columns = panels.columns(p);
      T* const to = out + (panels.at(block, p) - panels.data);
      if (transposed)
        panels.kernel.transpose(columns, depth, b + column * ldb + row, ldb, to, panels.stride(p));
      else
        panels.kernel.copy(depth, columns, b + row * ldb + column, ldb, to, panels.stride(p));
    }
  });
  return panels;
}

template <class T>
void multiply_panels(bool transpose_a, int64_t m, const T* a, int64_t lda, const Panels<T>& b, T* c, int64_t ldc,
                     bool accumulate) {
  const bool threads = m * b.n * b.k >= worth_threads && !in_parallel();
  const int64_t rows = std::min(m, round_up(ceil_div(m, ceil_div(m, row_block)), b.kernel.tile_rows));
  const int64_t row_blocks = ceil_div(m, rows);
  // Few rows: each task takes some of the columns.
  const int64_t groups = threads ? std::min(b.count(), ceil_div(2 * thread_count(), row_blocks)) : 1;
  // A copy of a block of A pays when it serves many panels of B, or more than one where rows fall into few sets of the
  // level-1 cache. The rows of the copy do not.
  const bool few_sets = lda * static_cast<int64_t>(sizeof(T)) % 1024 == 0;
  const bool copied = transpose_a || b.count() > (few_sets ? 1 : copy_panels);
  const int64_t step = chunk_blocks * depth_block;
  const int64_t copy_stride = std::min(step, round_up(b.k, b.kernel.lanes)) + 64 / static_cast<int64_t>(sizeof(T));

  run_tasks(row_blocks * groups, threads, [&](int64_t task) {
    const int64_t from = task / groups * rows, height = std::min(rows, m - from);
    const int64_t first = task % groups * b.count() / groups, last = (task % groups + 1) * b.count() / groups;
    const Buffer copy = copied ? Buffer(static_cast<size_t>(height * copy_stride) * sizeof(T)) : Buffer();
    alignas(64) T panel[depth_block * 2 * line<T>];
    for (int64_t k = 0; k < b.k; k += step) {
      const int64_t depth = std::min(step, b.k - k);
      const T* x = a + (transpose_a ? k * lda + from : from * lda + k);
      // The next block of A: of this task, or of the next one.
      Ahead<T> next_a;
      if (copied && !transpose_a && (k + step < b.k || from + rows < m)) {
        next_a.start = k + step < b.k ? x + step : a + (from + rows) * lda;
        next_a.row_lines = ceil_div(k + step < b.k ? std::min(step, b.k - k - step) : std::min(step, b.k), line<T>);
        next_a.stride = lda;
        next_a.count = next_a.row_lines * (k + step < b.k ? height : std::min(rows, m - from - rows));
      }
      if (transpose_a)
        b.kernel.transpose(depth, height, x, lda, copy.as<T>(), copy_stride);
      else if (copied)
        b.kernel.copy(height, depth, x, lda, copy.as<T>(), copy_stride);
      if (copied) x = copy.as<T>();
      const int64_t first_block = k / depth_block, last_block = ceil_div(k + depth, depth_block);
      const int64_t steps = (last - first) * (last_block - first_block);
      const int64_t rows_ahead = next_a.count / next_a.row_lines;
      for (int64_t p = first, done = 0; p < last; p++)
        for (int64_t block = first_block; block < last_block; block++, done++) {
          Ahead<T> next_b;
          if (block + 1 < last_block)
            next_b = b.lines(block + 1, p);
          else if (p + 1 < last)
            next_b = b.lines(first_block, p + 1);
          const int64_t row = rows_ahead * done / steps, end = rows_ahead * (done + 1) / steps;
          const Ahead<T> part_of_a{next_a.start + row * next_a.stride, (end - row) * next_a.row_lines, next_a.row_lines,
                                   next_a.stride};
          const T* y = b.at(block, p);
          int64_t stride = b.stride(p);
          if (b.layout == Layout::copied) {
            b.kernel.copy(b.depth(block), b.columns(p), y, stride, panel, b.padded_columns(p));
            y = panel, stride = b.padded_columns(p);
          }
          b.kernel.multiply(height, b.columns(p), b.depth(block), x + (block * depth_block - k),
                            copied ? copy_stride : lda, y, stride, c + from * ldc + p * b.width(), ldc,
                            accumulate || block > 0, next_b, part_of_a);
        }
    }
  });
}

template <class T>
void clear(int64_t m, int64_t n, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; i++) std::fill(c + i * ldc, c + i * ldc + n, T{});
}

// Whether few rows meet a B that is stored by columns, so that packing B would cost as much as the product.
bool turned(bool transpose_b, int64_t m, int64_t n) { return transpose_b && m <= turned_rows && 4 * m <= n; }

// C = op(A) Bᵀ as the transpose of B op(A)ᵀ: only A is packed, and B is read where it is. A product of two numbers does
// not depend on their order, so that the bits are the same.
template <class T>
void multiply_turned(bool transpose_a, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b,
                     int64_t ldb, T* c, int64_t ldc) {
  const int64_t stride = round_up(m, kernels<T>().lanes);
  const Buffer packed(static_cast<size_t>(packed_elements<T>(k, m)) * sizeof(T));
  const Panels<T> panels = pack(!transpose_a, k, m, a, lda, packed.as<T>());
  const int64_t step = 4 * row_block;
  const Buffer product(static_cast<size_t>(std::min(n, step) * stride) * sizeof(T));
  for (int64_t j = 0; j < n; j += step) {
    const int64_t columns = std::min(step, n - j);
    multiply_panels(false, columns, b + j * ldb, ldb, panels, product.as<T>(), stride, false);
    // The kernel pads with zeros to a whole register, for which the last columns of C have no room.
    const int64_t whole = columns / panels.kernel.lanes * panels.kernel.lanes;
    panels.kernel.transpose(whole, m, product.as<T>(), stride, c + j, ldc);
    for (int64_t l = whole; l < columns; l++)
      for (int64_t i = 0; i < m; i++) c[i * ldc + j + l] = product.as<T>()[l * stride + i];
  }
}

}  // namespace

template <class T>
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b,
          int64_t ldb, T* c, int64_t ldc, bool accumulate) {
  if (m <= 0 || n <= 0) return;
  if (k <= 0) {
    if (!accumulate) clear(m, n, c, ldc);
    return;
  }
  if (!accumulate && turned(transpose_b, m, n)) return multiply_turned(transpose_a, m, n, k, a, lda, b, ldb, c, ldc);
  const int64_t lanes = kernels<T>().lanes, width = 2 * lanes;
  if (!transpose_b) {
    // A copied panel pays when it serves more than one tile of rows. A last panel that ends inside a register is copied
    // anyway.
    const int64_t in_place = m <= kernels<T>().tile_rows ? n / lanes * lanes : 0;
    if (in_place > 0)
      multiply_panels(transpose_a, m, a, lda, Panels<T>{k, in_place, b, Layout::in_place, ldb}, c, ldc, accumulate);
    if (in_place < n)
      multiply_panels(transpose_a, m, a, lda, Panels<T>{k, n - in_place, b + in_place, Layout::copied, ldb},
                      c + in_place, ldc, accumulate);
    return;
  }
  const int64_t k_step = std::min(k, piece_depth);
  const int64_t n_step = std::min(n, std::max(width, piece_elements / k_step / width * width));
  alignas(64) T small[4096];
  const int64_t elements = packed_elements<T>(k_step, n_step);
  const Buffer large = elements > std::ssize(small) ? Buffer(static_cast<size_t>(elements) * sizeof(T)) : Buffer();
  T* const packed = elements > std::ssize(small) ? large.as<T>() : small;
  for (int64_t j = 0; j < n; j += n_step)
    for (int64_t l = 0; l < k; l += k_step) {
      const Panels<T> panels =
          pack(true, std::min(k_step, k - l), std::min(n_step, n - j), b + j * ldb + l, ldb, packed);
      multiply_panels(transpose_a, m, a + (transpose_a ? l * lda : l), lda, panels, c + j, ldc, accumulate || l > 0);
    }
}

bool worth_packing(bool transpose_b, int64_t m, int64_t n) {
  return transpose_b ? m <= turned_rows && !turned(transpose_b, m, n)
                     : m > kernels<float>().tile_rows && m <= copied_rows;
}

template <class T>
PackedMatrix<T>::PackedMatrix(bool transposed, int64_t k, int64_t n, const T* b, int64_t ldb) : k_(k), n_(n) {
  if (k <= 0 || n <= 0) return;
  panels_ = Buffer(static_cast<size_t>(packed_elements<T>(k, n)) * sizeof(T));
  pack(transposed, k, n, b, ldb, panels_.as<T>());
}

template <class T>
void PackedMatrix<T>::multiply(bool transpose_a, int64_t m, const T* a, int64_t lda, T* c, int64_t ldc,
                               bool accumulate) const {
  if (m <= 0 || n_ <= 0) return;
  if (k_ > 0)
    multiply_panels(transpose_a, m, a, lda, Panels<T>{k_, n_, panels_.as<T>()}, c, ldc, accumulate);
  else if (!accumulate)
    clear(m, n_, c, ldc);
}

template void gemm<float>(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t, float*,
                          int64_t, bool);
template void gemm<double>(bool, bool, int64_t, int64_t, int64_t, const double*, int64_t, const double*, int64_t,
                           double*, int64_t, bool);
template class PackedMatrix<float>;
template class PackedMatrix<double>;

}  // namespace fastntk::cpu
