#include "engine/cpu/gemm_bf16.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <vector>

#include "engine/cpu/gemm.h"
#include "engine/cpu/isa/bf16/gemm.h"
#include "engine/error.h"
#include "engine/parallel.h"

namespace fastntk::cpu {

#if defined(__x86_64__)

namespace {

using avx512bf16::lanes, avx512bf16::Pair, avx512bf16::tile_rows;

constexpr int64_t width = 2 * lanes;                 // columns of a panel
constexpr int64_t block_pairs = depth_block / 2;     // pairs of a block of depth
constexpr int64_t row_block = 21 * tile_rows;        // rows of A that one task takes
constexpr int64_t chunk_pairs = 3 * block_pairs;     // of which so much is in the cache: 387 KB
constexpr int64_t worth_threads = int64_t{1} << 21;  // multiply-adds below which waking other threads does not pay

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// To nearest, ties to even, as the processor does; NaN stays NaN.
uint32_t bf16_of(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (x != x) return bits >> 16 | 0x40;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Packed, blocks of depth follow each other; in a block its panels, each pair by pair and padded with zeros.
Pair* panel_at(const Buffer& panels, int64_t k, int64_t n, int64_t block, int64_t panel) {
  const int64_t first = block * block_pairs, pairs = std::min(block_pairs, ceil_div(k, 2) - first);
  return panels.as<Pair>() + first * round_up(n, lanes) + pairs * panel * width;
}

}  // namespace

bool has_bf16() {
  static const bool has = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  }();
  return has;
}

Bf16Matrix::Bf16Matrix(bool transposed, int64_t k, int64_t n, const float* b, int64_t ldb) : k_(k), n_(n) {
  const int64_t pairs = ceil_div(k, 2);
  panels_ = Buffer(static_cast<size_t>(pairs * round_up(n, lanes)) * sizeof(Pair));
  const auto value = [&](int64_t l, int64_t j) {
    return l < k && j < n ? bf16_of(transposed ? b[j * ldb + l] : b[l * ldb + j]) : 0;
  };
  const auto pack_panel = [&](int64_t p) {
    const int64_t first = p * width, columns = std::min(width, round_up(n - first, lanes));
    for (int64_t block = 0; block * block_pairs < pairs; block++) {
      Pair* to = panel_at(panels_, k, n, block, p);
      const int64_t end = std::min(pairs, (block + 1) * block_pairs);
      for (int64_t l = block * block_pairs; l < end; l++)
        for (int64_t j = first; j < first + columns; j++) *to++ = value(2 * l, j) | value(2 * l + 1, j) << 16;
    }
  };
  if (in_parallel())
    for (int64_t p = 0; p < ceil_div(n, width); p++) pack_panel(p);
  else
    parallel_for(ceil_div(n, width), std::cref(pack_panel));
}

void Bf16Matrix::multiply(bool transpose_a, int64_t m, const float* a, int64_t lda, float* c, int64_t ldc) const {
  if (m <= 0 || n_ <= 0) return;
  const bool threads = m * n_ * k_ >= worth_threads && !in_parallel();
  const int64_t rows = std::min(m, round_up(ceil_div(m, ceil_div(m, row_block)), tile_rows));
  const int64_t row_blocks = ceil_div(m, rows), panels = ceil_div(n_, width), pairs = ceil_div(k_, 2);
  // Few rows: each task takes some of the columns.
  const int64_t groups = threads ? std::min(panels, ceil_div(2 * thread_count(), row_blocks)) : 1;
  const int64_t stride = std::min(chunk_pairs, round_up(pairs, lanes)) + lanes;
  const auto run = [&](int64_t task) {
    const int64_t from = task / groups * rows, height = std::min(rows, m - from);
    const int64_t first = task % groups * panels / groups, last = (task % groups + 1) * panels / groups;
    const Buffer copy(static_cast<size_t>(height * stride) * sizeof(Pair));
    std::vector<float> turned(transpose_a ? static_cast<size_t>(height * 2 * chunk_pairs) : 0);
    for (int64_t l = 0; l < pairs; l += chunk_pairs) {
      const int64_t end = std::min(pairs, l + chunk_pairs), depth = std::min(k_, 2 * end) - 2 * l;
      const float* x = a + (transpose_a ? 2 * l * lda + from : from * lda + 2 * l);
      if (transpose_a) {
        for (int64_t k = 0; k < depth; k++)
          for (int64_t i = 0; i < height; i++) turned[static_cast<size_t>(i * depth + k)] = x[k * lda + i];
        x = turned.data();
      }
      avx512bf16::to_pairs(height, depth, x, transpose_a ? depth : lda, copy.as<Pair>(), stride);
      for (int64_t p = first; p < last; p++)
        for (int64_t block = l / block_pairs; block * block_pairs < end; block++) {
          const int64_t start = block * block_pairs, columns = std::min(width, n_ - p * width);
          avx512bf16::multiply(height, columns, std::min(block_pairs, pairs - start), copy.as<Pair>() + (start - l),
                               stride, panel_at(panels_, k_, n_, block, p), round_up(columns, lanes),
                               c + from * ldc + p * width, ldc, block > 0);
        }
    }
  };
  if (threads)
    parallel_for(row_blocks * groups, std::cref(run));
  else
    for (int64_t task = 0; task < row_blocks * groups; task++) run(task);
}

#else

bool has_bf16() { return false; }
Bf16Matrix::Bf16Matrix(bool, int64_t k, int64_t n, const float*, int64_t) : k_(k), n_(n) {
  fail("products in bf16 are for x86-64 processors");
}
void Bf16Matrix::multiply(bool, int64_t, const float*, int64_t, float*, int64_t) const {
  fail("products in bf16 are for x86-64 processors");
}

#endif

}  // namespace fastntk::cpu
