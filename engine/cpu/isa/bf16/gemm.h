// The register-level pieces of the matrix product in bfloat16, compiled for AVX512_BF16 alone.
#pragma once
#include <cstdint>

namespace fastntk::cpu::avx512bf16 {

constexpr int64_t tile_rows = 12;  // rows of C that stay in registers, in two registers each
constexpr int64_t lanes = 16;      // columns of C in a register

/// Two neighbours of the inner dimension in bfloat16: the first in the lower half.
using Pair = uint32_t;

/// out [rows, ⌈depth / 2⌉] ← in [rows, depth], rounded to nearest; the last half pair is zero where depth is odd.
/// Strides are in elements.
void to_pairs(int64_t rows, int64_t depth, const float* in, int64_t in_stride, Pair* out, int64_t out_stride);

/// C[rows, columns] = A[rows, pairs] B[pairs, columns], added to C if `add`. columns <= 2 * lanes. Each element is one
/// chain of multiply-adds of pairs from zero over ascending depth, in float32. Rows of B are readable up to the next
/// multiple of lanes.
void multiply(int64_t rows, int64_t columns, int64_t pairs, const Pair* a, int64_t lda, const Pair* b, int64_t ldb,
              float* c, int64_t ldc, bool add);

}  // namespace fastntk::cpu::avx512bf16
