// What ops of one input, computed element by element, have in common.
#pragma once
#include "engine/backend.h"
#include "engine/op.h"

namespace fastntk {

/// The kernel of that kind on every element.
inline Tensor map_tensor(UnaryKind kind, const Tensor& x, double parameter = 0) {
  Tensor out(x.shape(), x.dtype(), x.device());
  backend_of(x).map(kind, parameter, x, out);
  return out;
}

/// y = f(x; parameter). The linear map is diagonal, so jvp and vjp are the same function.
struct Unary : Op {
  Unary(const OpInfo& info, UnaryKind kind, double parameter = 0) : Op(info), kind(kind), parameter(parameter) {}
  UnaryKind kind;
  double parameter;

  Shape shape(std::span<const Shape> in) const override { return in[0]; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return map_tensor(kind, in[0], parameter);
  }
  virtual Variable diagonal(const Linearisation& at, const Variable& t) const = 0;
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override { return diagonal(at, t[0]); }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override { return {diagonal(at, c)}; }
};

}  // namespace fastntk
