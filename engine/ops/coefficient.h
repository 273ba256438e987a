// Coefficients of a normalisation: γ or β [1 or N, C] beside x [N, …, C].
#pragma once
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace fastntk {

/// [1 or N, C] beside [N, …, C]: ones in between.
inline Shape coefficient_shape(const Shape& x, const Shape& coefficient) {
  Shape s = coefficient.leading(coefficient.rank() - 1);
  for (int i = 2; i < x.rank(); i++) s.push_back(1);
  return s + Shape{coefficient[-1]};
}

/// A coefficient, or a stack of tangents of one, so that it broadcasts over x.
inline Variable spread(const Variable& coefficient, const Shape& x) {
  return reshape(coefficient, coefficient_shape(x, coefficient.shape()));
}

/// The transpose of spreading input `coefficient` of a record over its input `x`: g [K…, N, …, C] summed to [K…, 1 or
/// N, C].
inline Variable coefficient_cotangent(const Linearisation& at, int x, int coefficient, const Variable& g) {
  const Shape &full = at.input_shape(x), &own = at.input_shape(coefficient);
  return reshape(sum_to(g, coefficient_shape(full, own), full.rank()), g.shape().leading(g.rank() - full.rank()) + own);
}

/// x [N, …, C] as kernels want it: [N, positions, C], contiguous.
inline Tensor images(const Tensor& t) {
  return t.contiguous().reshape({t.extent(0), t.shape().slice(1, t.rank() - 1).elements(), t.extent(-1)});
}
/// A stack [K…, N, …, C] of a shape of rank r: [K, N, positions, C], contiguous.
inline Tensor stacked_images(const Tensor& t, int r) {
  const int lead = t.rank() - r;
  return t.contiguous().reshape({t.shape().leading(lead).elements(), t.extent(lead),
                                 t.shape().slice(lead + 1, t.rank() - 1).elements(), t.extent(-1)});
}

}  // namespace fastntk
