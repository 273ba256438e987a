#include "engine/ops/cumsum.h"

#include "engine/backend.h"

namespace fastntk {
namespace {

// y_i = Σ_{j ≤ i} x_j.   Transpose: from the other end, Σ_{j ≥ i} c_j.
struct Cumsum final : Op {
  static inline const OpInfo& info = register_op({"cumsum", "y_i = Σ_{j ≤ i} x_j", "dy_i = Σ_{j ≤ i} dx_j"});
  Cumsum(int axis, bool reverse) : Op(info), axis(axis), reverse(reverse) {}
  int axis;  // negative
  bool reverse;

  std::string attributes() const override { return fmt::format("axis={}{}", axis, reverse ? " reverse" : ""); }
  Shape shape(std::span<const Shape> in) const override { return in[0]; }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    Tensor out(in[0].shape(), in[0].dtype(), in[0].device());
    backend_of(in[0]).cumsum(in[0], axis, reverse, out);
    return out;
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override {
    return apply(Cumsum(axis, reverse), {t[0]});
  }
  std::vector<Variable> vjp(const Linearisation&, const Variable& c) const override {
    return {apply(Cumsum(axis, !reverse), {c})};
  }
  bool mixes_samples(std::span<const Shape> in) const override { return axis == -in[0].rank(); }
};

}  // namespace

Variable cumsum(const Variable& x, int axis, bool reverse) {
  const int back = axis < 0 ? axis : axis - x.rank();
  require(back >= -x.rank() && back < 0, "cumsum: axis {} of a tensor of rank {}", axis, x.rank());
  return apply(Cumsum(back, reverse), {x});
}

}  // namespace fastntk
