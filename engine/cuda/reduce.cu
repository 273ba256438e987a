// Sums and maxima over any axes.
#include "engine/cuda/reduce.cuh"

#include "engine/cuda/families.h"

namespace fastntk::FASTNTK_GPU {

template <class Join, class T>
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
  const Places<2> outer(kept, {kept_y, kept_x});
  const Places<1> inner(reduced, {reduced_x});
  const T* const in = elements<T>(x);
  T* const y = elements_to_write<T>(out);
  const bool along = inner.stride[0][inner.axes - 1] == 1 || outer.stride[1][outer.axes - 1] != 1;
  reduce<Join>(
      along ? Neighbours::along : Neighbours::across, kept.elements(), reduced.elements(),
      [=] __device__(int64_t output, int64_t i) {
        return static_cast<double>(in[outer(output).of[1] + inner(i).of[0]]);
      },
      [=] __device__(int64_t output, double v) { y[outer(output).of[0]] = static_cast<T>(v); });
}

void reduce(ReduceKind kind, const Tensor& x, Tensor& out) {
  require(x.rank() == out.rank(), "reduce: {} to {}", x.shape().str(), out.shape().str());
  for_floating(x.dtype(), "a reduction", [&](auto zero) {
    using T = decltype(zero);
    kind == ReduceKind::sum ? reduce_typed<Sum, T>(x, out) : reduce_typed<Max, T>(x, out);
  });
}

}  // namespace fastntk::FASTNTK_GPU
