// Attention as matrix products and softmax of all heads at once. P is made again for the transposed map, and once for a
// whole stack of cotangents.
#include "engine/cuda/families.h"

namespace fastntk::FASTNTK_GPU {
namespace {

// α q kᵀ through softmax by row: [N…, T, S].
Tensor probabilities(const Tensor& q, const Tensor& k, double scale) {
  const Shape shape = q.shape().leading(q.rank() - 1) + Shape{k.extent(-2)};
  Tensor scores(shape, q.dtype(), q.device()), p(shape, q.dtype(), q.device());
  gemm(q, k.transpose(-2, -1), scores);
  map(UnaryKind::scale, scale, scores, scores);
  softmax(SoftmaxKind::softmax, scores, p);
  return p;
}

}  // namespace

void attention(const Backend::Attention& arguments) {
  if (arguments.y.elements() == 0) return;
  const Tensor p = probabilities(arguments.q, arguments.k, arguments.scale);
  gemm(p, arguments.v, arguments.y);
}

// With c the cotangent: dv = Pᵀ c, dS = α P ⊙ (c vᵀ − ⟨P, c vᵀ⟩), dq = dS k, dk = dSᵀ q.
void attention_transposed(const Backend::AttentionTransposed& arguments) {
  const auto& [q, k, v, scale, c, dq, dk, dv] = arguments;
  if (c.elements() == 0 || q.elements() == 0) {
    for (Tensor* const out : {dq, dk, dv})
      if (out) fill(*out, 0);
    return;
  }
  const Tensor p = probabilities(q, k, scale);
  if (dv) gemm(p.transpose(-2, -1), c, *dv);
  if (!dq && !dk) return;
  const Shape shape = Shape{c.extent(0)} + p.shape();
  Tensor dp(shape, q.dtype(), q.device()), ds(shape, q.dtype(), q.device());
  gemm(c, v.transpose(-2, -1), dp);
  softmax_map(SoftmaxMap::softmax, p, dp, ds);
  map(UnaryKind::scale, scale, ds, ds);
  if (dq) gemm(ds, k, *dq);
  if (dk) gemm(ds.transpose(-2, -1), q, *dk);
}

}  // namespace fastntk::FASTNTK_GPU
