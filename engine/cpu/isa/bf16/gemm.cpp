#include "engine/cpu/isa/bf16/gemm.h"

#include <immintrin.h>

namespace fastntk::cpu::avx512bf16 {
namespace {

// One register tile: R rows by V registers, the last of which holds only `last` elements. Every loop over accumulators
// must be unrolled, or the compiler keeps them in memory.
template <int R, int V>
__attribute__((noinline)) void tile(int64_t pairs, const Pair* a, int64_t lda, const Pair* b, int64_t ldb, float* c,
                                    int64_t ldc, int64_t last, bool add) {
  __m512 sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) sum[r][v] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (int64_t k = 0; k < pairs; k++, b += ldb) {
    __m512bh row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) row[v] = (__m512bh)_mm512_loadu_si512(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * lda + k]));
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, row[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      float* const p = c + r * ldc + v * lanes;
      const auto mask = static_cast<__mmask16>((1U << (v < V - 1 ? lanes : last)) - 1);
      _mm512_mask_storeu_ps(p, mask, add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, p), sum[r][v]) : sum[r][v]);
    }
}

template <int V, int R = tile_rows>
inline void tile_of(int64_t rows, int64_t pairs, const Pair* a, int64_t lda, const Pair* b, int64_t ldb, float* c,
                    int64_t ldc, int64_t last, bool add) {
  if (rows == R)
    tile<R, V>(pairs, a, lda, b, ldb, c, ldc, last, add);
  else if constexpr (R > 1)
    tile_of<V, R - 1>(rows, pairs, a, lda, b, ldb, c, ldc, last, add);
}

}  // namespace

void to_pairs(int64_t rows, int64_t depth, const float* in, int64_t in_stride, Pair* out, int64_t out_stride) {
  constexpr int64_t half = lanes / 2;
  for (int64_t i = 0; i < rows; i++, in += in_stride, out += out_stride) {
    int64_t k = 0;
    for (; k + lanes <= depth; k += lanes)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k / 2),
                          (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(in + k)));
    if (k == depth) continue;
    const auto mask = static_cast<__mmask16>((1U << (depth - k)) - 1);
    const auto words = static_cast<__mmask8>((1U << ((depth - k + 1) / 2)) - 1);
    const __m256i rest = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, in + k));
    static_assert(half == 8);
    _mm256_mask_storeu_epi32(out + k / 2, words, rest);
  }
}

void multiply(int64_t rows, int64_t columns, int64_t pairs, const Pair* a, int64_t lda, const Pair* b, int64_t ldb,
              float* c, int64_t ldc, bool add) {
  // Tiles of nearly equal height: a last tile of one row would wait for the latency of each multiply-add.
  const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
  for (int64_t t = 0, from = 0; t < tiles; t++) {
    const int64_t height = rows / tiles + (t < rows % tiles);
    if (columns > lanes)
      tile_of<2>(height, pairs, a + from * lda, lda, b, ldb, c + from * ldc, ldc, columns - lanes, add);
    else
      tile_of<1>(height, pairs, a + from * lda, lda, b, ldb, c + from * ldc, ldc, columns, add);
    from += height;
  }
}

}  // namespace fastntk::cpu::avx512bf16
