// Matrix products: C = op(A) op(B), row-major, float32 and float64.
//
// What is promised about bits: element (i, j) of a product is one fixed sequence of operations on row i of op(A) and
// column j of op(B). The inner dimension is cut into blocks of 256; each block is one chain of fused multiply-adds from
// zero in ascending order (a product and a sum where the processor cannot fuse them), and the blocks are added in
// ascending order, to the old element of C when accumulating. So it does not depend on m, on n, on the element's place
// in the matrix, on transposes, on whether B was packed beforehand, or on the number of threads: a row multiplied alone
// gives the bits it gives in a batch.
#pragma once
#include <cstdint>

#include "engine/storage.h"

namespace fastntk::cpu {

/// Terms of the inner dimension that are summed in registers before they are added to C: part of what the result is.
/// One block of a panel of B (32 columns of float32) fills two thirds of a 48 KB level-1 cache.
constexpr int64_t depth_block = 256;

/// C[m, n] = op(A) op(B), or C += op(A) op(B) if `accumulate`. op(A) is [m, k], stored as it is or, with transpose_a,
/// as [k, m]; op(B) is [k, n], stored as it is or, with transpose_b, as [n, k]. lda, ldb, ldc are the distances between
/// stored rows, in elements. C must not overlap A or B. With k = 0 the product is zero.
template <class T>
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b,
          int64_t ldb, T* c, int64_t ldc, bool accumulate = false);

/// Whether a B of n columns that will be multiplied again should be packed for a product of m rows: not where gemm()
/// reads B in place or copies it at little cost, in comparison with the product.
bool worth_packing(bool transpose_b, int64_t m, int64_t n);

/// A right operand op(B) [k, n] packed once for many products, as the weights of a layer are. Gives the bits that gemm
/// gives.
template <class T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// B is stored as [k, n] or, if `transposed`, as [n, k], with rows `ldb` elements apart. It is not referred to
  /// afterwards.
  PackedMatrix(bool transposed, int64_t k, int64_t n, const T* b, int64_t ldb);

  /// C[m, n] = op(A) op(B), added to C if `accumulate`. A is stored as [m, k] or, with transpose_a, as [k, m].
  void multiply(bool transpose_a, int64_t m, const T* a, int64_t lda, T* c, int64_t ldc, bool accumulate = false) const;
  void multiply(int64_t m, const T* a, int64_t lda, T* c, int64_t ldc, bool accumulate = false) const {
    multiply(false, m, a, lda, c, ldc, accumulate);
  }

  int64_t rows() const { return k_; }
  int64_t columns() const { return n_; }

 private:
  int64_t k_ = 0, n_ = 0;
  Buffer panels_;
};

}  // namespace fastntk::cpu
