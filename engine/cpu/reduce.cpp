#include "engine/cpu/reduce.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/cpu/strided.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

struct Sum {
  static constexpr double start = 0;
  static double join(double a, double x) { return a + x; }
};
struct Max {
  static constexpr double start = -std::numeric_limits<double>::infinity();
  static double join(double a, double x) { return x > a || x != x ? x : a; }  // a NaN stays one
};

// out[i] over kept axes; the reduced axes are walked inside. `block` neighbouring outputs share one walk, so that rows
// of channels are read in the order of memory.
template <class R, class T>
void reduce_typed(const Tensor& x, Tensor& out) {
  Shape kept, kept_x, kept_y, reduced, reduced_x;
  for (int i = 0; i < x.rank(); i++) {
    if (out.extent(i) == x.extent(i)) {
      kept.push_back(x.extent(i)), kept_x.push_back(x.strides()[i]), kept_y.push_back(out.strides()[i]);
    } else {
      require(out.extent(i) == 1, "reduce: {} to {}", x.shape().str(), out.shape().str());
      reduced.push_back(x.extent(i)), reduced_x.push_back(x.strides()[i]);
    }
  }
  const Walk<2> outer(kept, {kept_y, kept_x});
  const Walk<1> inner(reduced, {reduced_x});
  const T* const in = x.data<T>();
  T* const y = out.mutable_data<T>();
  if (kept.elements() == 0) return;
  const int64_t step_x = outer.inner_stride(1), step_y = outer.inner_stride(0);
  const int64_t length = outer.inner(), n = reduced.elements() == 0 ? 0 : inner.inner(), stride = inner.inner_stride(0);
  const int64_t rows = reduced.elements() == 0 ? 0 : inner.rows();
  constexpr int64_t block = 64;
  const int64_t blocks = (length + block - 1) / block;
  const int64_t work = std::max<int64_t>(1, reduced.elements() * std::min(length, block));
  parallel_ranges(outer.rows() * blocks, std::max<int64_t>(1, (1 << 15) / work), [&](int64_t from, int64_t to) {
    for (int64_t item = from; item < to; item++) {
      const int64_t row = item / blocks, first = item % blocks * block, count = std::min(block, length - first);
      outer.for_rows(row, row + 1, [&](const std::array<int64_t, 2>& at) {
        double sum[block];
        std::fill(sum, sum + count, R::start);
        inner.for_rows(0, rows, [&](const std::array<int64_t, 1>& start) {
          const T* const p = in + at[1] + first * step_x + start[0];
          for (int64_t i = 0; i < n; i++)
            for (int64_t c = 0; c < count; c++)
              sum[c] = R::join(sum[c], static_cast<double>(p[i * stride + c * step_x]));
        });
        for (int64_t c = 0; c < count; c++) y[at[0] + (first + c) * step_y] = static_cast<T>(sum[c]);
      });
    }
  });
}

}  // namespace

void reduce(ReduceKind kind, const Tensor& x, Tensor& out) {
  require(x.rank() == out.rank(), "reduce: {} to {}", x.shape().str(), out.shape().str());
  for_floating(x.dtype(), "a reduction", [&](auto zero) {
    using T = decltype(zero);
    kind == ReduceKind::sum ? reduce_typed<Sum, T>(x, out) : reduce_typed<Max, T>(x, out);
  });
}

}  // namespace fastntk::cpu
