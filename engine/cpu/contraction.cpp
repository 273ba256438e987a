#include "engine/cpu/contraction.h"

#include <algorithm>

#include "engine/cpu/gemm.h"
#include "engine/cpu/gemm_bf16.h"
#include "engine/cpu/map.h"
#include "engine/cpu/strided.h"
#include "engine/parallel.h"
#include "engine/precision.h"

namespace fastntk::cpu {
namespace {

// How a matrix lies in memory. A step along an axis of extent 1 means nothing.
struct Matrix {
  int64_t rows, columns, row_step, column_step;

  explicit Matrix(const Tensor& t)
      : rows(t.extent(-2)), columns(t.extent(-1)), row_step(t.strides()[-2]), column_step(t.strides()[-1]) {}
  bool plain() const { return (columns == 1 || column_step == 1) && (rows == 1 || row_step >= columns); }
  bool transposed() const { return (rows == 1 || row_step == 1) && (columns == 1 || column_step >= rows); }
  /// The distance between the rows of what is stored: this matrix or, if it is not plain, its transpose.
  int64_t leading_step() const {
    return plain() ? (rows == 1 ? columns : row_step) : (columns == 1 ? rows : column_step);
  }
};

// The matrices of `t`, those that are repeated only once, copied if gemm cannot read them where they are; then
// expanded.
Tensor matrices(const Tensor& t, const Shape& batch) {
  Tensor distinct = t;
  for (int axis = 0; axis < t.rank() - 2; axis++)
    if (t.strides()[axis] == 0 && t.extent(axis) > 1) distinct = distinct.slice(axis, 0, 1);
  const Matrix m(distinct);
  if (!m.plain() && !m.transposed()) distinct = distinct.contiguous();
  return distinct.expand(batch + distinct.shape().trailing(2));
}

// Packing a small matrix costs no more than looking it up.
constexpr int64_t least_kept = 4096;

}  // namespace

void gemm(const Tensor& a_view, const Tensor& b_view, Tensor& out, bool keep_b) {
  require(a_view.dtype() == b_view.dtype(), "a matrix product of {} and {}: the types differ", a_view.describe(),
          b_view.describe());
  require(is_floating(out.dtype()), "a matrix product needs float32 or float64, got {}", out.describe());
  const Shape batch = out.shape().leading(out.rank() - 2);
  const int64_t n = out.extent(-1), k = a_view.extent(-1);
  if (out.elements() == 0) return;
  if (k == 0) return fill(out, 0);
  const Tensor a = matrices(a_view, batch), b = matrices(b_view, batch);
  if (k == 1) return map(BinaryKind::multiply, a.expand(out.shape()), b.expand(out.shape()), out);

  // Batch axes along which b is the same and the rows of a go on evenly: more rows of one product.
  Matrix A(a);
  const Matrix B(b);
  int axes = batch.rank();
  for (; axes > 0; axes--) {
    const int64_t extent = batch[axes - 1], step = a.strides()[axes - 1];
    if (extent == 1) continue;
    Matrix joined = A;
    joined.rows = A.rows * extent;
    if (A.rows == 1) joined.row_step = step;
    if (b.strides()[axes - 1] != 0 || step != A.rows * joined.row_step || !(joined.plain() || joined.transposed()))
      break;
    A = joined;
  }

  const int64_t items = batch.leading(axes).elements(), work = A.rows * n * k;
  for_floating(out.dtype(), "a matrix product", [&](auto zero) {
    using T = decltype(zero);
    const T *const pa = a.data<T>(), *const pb = b.data<T>();
    T* const pc = out.mutable_data<T>();
    const auto multiply = [&](int64_t i) {
      gemm(!A.plain(), !B.plain(), A.rows, n, k, pa + offset_of(a, axes, i), A.leading_step(),
           pb + offset_of(b, axes, i), B.leading_step(), pc + i * A.rows * n, n);
    };
    if constexpr (std::is_same_v<T, float>) {
      // A weight is one matrix for the whole batch, of which bf16 speaks.
      bool one = keep_b && n * k >= least_kept && linear_precision() == Precision::bf16;
      for (int axis = 0; axis < axes; axis++) one = one && (b.strides()[axis] == 0 || batch[axis] == 1);
      if (one) {
        const auto packed = b.storage()->template derived<Bf16Matrix>(
            fmt::format("bf16 gemm {} {} {} {} {}", b.offset(), k, n, !B.plain(), B.leading_step()),
            [&] { return Bf16Matrix(!B.plain(), k, n, pb, B.leading_step()); });
        for (int64_t i = 0; i < items; i++)
          packed->multiply(!A.plain(), A.rows, pa + offset_of(a, axes, i), A.leading_step(), pc + i * A.rows * n, n);
        return;
      }
    }
    if (items == 1 && keep_b && n * k >= least_kept && worth_packing(!B.plain(), A.rows, n)) {
      const auto packed = b.storage()->template derived<PackedMatrix<T>>(
          fmt::format("gemm {} {} {} {} {}", b.offset(), k, n, !B.plain(), B.leading_step()),
          [&] { return PackedMatrix<T>(!B.plain(), k, n, pb, B.leading_step()); });
      packed->multiply(!A.plain(), A.rows, pa, A.leading_step(), pc, n);
      return;
    }
    // Few large products: their own threads share the work more evenly.
    if (items < 4 * thread_count() && work >= int64_t{1} << 22)
      for (int64_t i = 0; i < items; i++) multiply(i);
    else
      parallel_ranges(items, std::max<int64_t>(1, (int64_t{1} << 17) / work), [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++) multiply(i);
      });
  });
}

}  // namespace fastntk::cpu
