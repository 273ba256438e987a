// Matrix products with both operands in bfloat16 and sums in float32, for right operands that are used many times.
#pragma once
#include <cstdint>

#include "engine/storage.h"

namespace fastntk::cpu {

/// Whether this build and this processor have AVX512_BF16, without which nothing here may be called.
bool has_bf16();

/// A right operand op(B) [k, n] in bfloat16, packed once for many products. Element (i, j) of a product is one fixed
/// sequence of operations on row i of op(A) and column j of op(B), whatever else is multiplied with them: blocks of 256
/// of the inner dimension, added in ascending order, each a chain over pairs.
class Bf16Matrix {
 public:
  /// B is stored as [k, n] or, if `transposed`, as [n, k], with rows `ldb` elements apart. It is not referred to
  /// afterwards.
  Bf16Matrix(bool transposed, int64_t k, int64_t n, const float* b, int64_t ldb);
  /// C[m, n] = op(A) op(B), op(A) rounded to bfloat16. A is stored as [m, k] or, with transpose_a, as [k, m].
  void multiply(bool transpose_a, int64_t m, const float* a, int64_t lda, float* c, int64_t ldc) const;

 private:
  int64_t k_, n_;
  Buffer panels_;
};

}  // namespace fastntk::cpu
