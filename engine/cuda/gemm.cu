// Matrix products: every product is a batch of column-major ones, in which row-major matrices appear transposed.
#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"
#include "engine/precision.h"

namespace fastntk::FASTNTK_GPU {

/// A batch of matrices as a column-major BLAS takes it: transposed ('N' for row-major ones, because the other way round
/// they are column-major) and the distance between rows or columns.
struct Operand {
  Tensor matrices;
  char transpose = 'N';
  int64_t leading = 1;

  explicit Operand(const Tensor& t) : matrices(t) {
    if (!fits(-2, -1) && !fits(-1, -2)) matrices = t.contiguous();
    const bool rows = fits(-2, -1);
    const int slow = rows ? -2 : -1, fast = rows ? -1 : -2;
    transpose = rows ? 'N' : 'T';
    leading = matrices.extent(slow) == 1 ? matrices.extent(fast) : matrices.strides()[slow];
  }

 private:
  // Do elements lie side by side along axis `fast`, and far enough apart along axis `slow`?
  bool fits(int slow, int fast) const {
    const int64_t n = matrices.extent(fast);
    return (n == 1 || matrices.strides()[fast] == 1) && (matrices.extent(slow) == 1 || matrices.strides()[slow] >= n);
  }
};

// The strides of the batch axes of `t` over those of `out`.
Shape batch_strides(const Tensor& t, const Tensor& out) {
  Shape strides;
  const int missing = out.rank() - t.rank();
  for (int axis = 0; axis < out.rank() - 2; axis++)
    strides.push_back(axis < missing || t.extent(axis - missing) == 1 ? 0 : t.strides()[axis - missing]);
  return strides;
}

template <class T>
void gemm_typed(const Tensor& a, const Tensor& b, Tensor& out, bool tf32) {
  const int64_t m = out.extent(-2), n = out.extent(-1), k = a.extent(-1);
  const Operand left(a), right(b);
  const T *const pa = elements<T>(left.matrices), *const pb = elements<T>(right.matrices);
  T* const y = elements_to_write<T>(out);
  const int64_t row = m == 1 ? n : out.strides()[-2];
  const cpu::Walk<3> walk(
      out.shape().leading(out.rank() - 2),
      {out.strides().leading(out.rank() - 2), batch_strides(left.matrices, out), batch_strides(right.matrices, out)});
  // Also where b is one matrix for the whole batch: as more rows of a single product, those of a sample would be summed
  // in an order that depends on how many others are with it, and a state could not be verified.
  walk.for_rows(0, walk.rows(), [&](const std::array<int64_t, 3>& at) {
    // yᵀ = bᵀ aᵀ
    gemm(BatchedGemm<T>{right.transpose, left.transpose, narrow(n), narrow(m), narrow(k), pb + at[2],
                        narrow(right.leading), walk.inner_stride(2), pa + at[1], narrow(left.leading),
                        walk.inner_stride(1), y + at[0], narrow(row), walk.inner_stride(0), narrow(walk.inner()),
                        tf32});
  });
}

void gemm(const Tensor& a, const Tensor& b, Tensor& out, bool of_layer) {
  require(a.dtype() == b.dtype(), "a matrix product of {} and {}: the types differ", a.describe(), b.describe());
  if (out.elements() == 0) return;
  if (a.extent(-1) == 0) return fill(out, 0);
  require(!of_layer || linear_precision() != Precision::bf16, "products in bf16 are for the CPU");
  const bool tf32 = of_layer && a.dtype() == DType::float32 && linear_precision() == Precision::tf32;
  for_floating(a.dtype(), "a matrix product", [&](auto zero) { gemm_typed<decltype(zero)>(a, b, out, tf32); });
}

}  // namespace fastntk::FASTNTK_GPU
