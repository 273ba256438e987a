// What ops of several inputs that broadcast over one another have in common.
#pragma once
#include "engine/backend.h"
#include "engine/ops/reduce.h"

namespace fastntk {

/// A cotangent of input i from one in the shape of the output: summed over what was broadcast.
inline Variable to_input(const Linearisation& at, int i, const Variable& c) {
  return sum_to(c, at.input_shape(i), at.output_shape().rank());
}
/// A tangent of input i in the shape of the output.
inline Variable to_output(const Linearisation& at, int i, const Variable& t) {
  const int lead = t.rank() - at.input_shape(i).rank();
  Shape aligned = t.shape().leading(lead);
  for (int k = at.input_shape(i).rank(); k < at.output_shape().rank(); k++) aligned.push_back(1);
  return expand(reshape(t, aligned + at.input_shape(i)), t.shape().leading(lead) + at.output_shape());
}

/// y = f(a, b), element by element.
struct Binary : Op {
  Binary(const OpInfo& info, BinaryKind kind) : Op(info), kind(kind) {}
  BinaryKind kind;

  Shape shape(std::span<const Shape> in) const override { return broadcast(in[0], in[1], name().c_str()); }
  Tensor map(BinaryKind k, const Tensor& a, const Tensor& b) const {
    const Shape out_shape = broadcast(a.shape(), b.shape(), name().c_str());
    Tensor out(out_shape, a.dtype(), a.device());
    backend_of(a).map(k, a.expand(out_shape), b.expand(out_shape), out);
    return out;
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return map(kind, in[0], in[1]);
  }
};

}  // namespace fastntk
