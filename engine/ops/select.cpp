#include "engine/ops/select.h"

#include "engine/ops/binary.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/unary.h"

namespace fastntk {
namespace {

// Which input the output is changes at kinks only, so it is a constant of the linear map. Extra: w, 1 where y is a, 0
// where it is b, ½ where they are equal.
struct Extremum : Binary {
  using Binary::Binary;
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet active, std::vector<Tensor>& extras) const override {
    const bool largest = kind == BinaryKind::maximum;
    if (active) extras.push_back(map(BinaryKind::compare, in[largest ? 0 : 1], in[largest ? 1 : 0]));
    return map(kind, in[0], in[1]);
  }
  static Variable weight(const Linearisation& at, int i) {
    const Variable w = at.extra(0);
    return i == 0 ? w : shift(negate(w), 1);
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable sum;
    for (int i = 0; i < 2; i++)
      if (t[static_cast<size_t>(i)].defined())
        sum = add_defined(sum, to_output(at, i, t[static_cast<size_t>(i)]) * weight(at, i));
    return sum;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_input(at, 0, c * weight(at, 0)) : Variable{},
            at.active(1) ? to_input(at, 1, c * weight(at, 1)) : Variable{}};
  }
};

struct Maximum final : Extremum {
  static inline const OpInfo& info = register_op({"maximum", "y = max(a, b)", "dy = [a > b] da + [a < b] db"});
  Maximum() : Extremum(info, BinaryKind::maximum) {}
};

struct Minimum final : Extremum {
  static inline const OpInfo& info = register_op({"minimum", "y = min(a, b)", "dy = [a < b] da + [a > b] db"});
  Minimum() : Extremum(info, BinaryKind::minimum) {}
};

// Inputs {m, a, b}; m is 0 or 1.
struct Where final : Op {
  static inline const OpInfo& info = register_op({"where", "y = a where m, else b", "dy = da where m, else db"});
  Where() : Op(info) {}
  Shape shape(std::span<const Shape> in) const override {
    return broadcast(in[0], broadcast(in[1], in[2], name().c_str()), name().c_str());
  }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  // v where the output is input i, else 0.
  static Variable chosen(const Variable& m, int i, const Variable& v) {
    return where_positive(v, i == 1 ? m : shift(negate(m), 1));
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return (chosen(in[0], 1, in[1]) + chosen(in[0], 2, in[2])).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable sum;
    for (int i = 1; i < 3; i++)
      if (t[static_cast<size_t>(i)].defined())
        sum = add_defined(sum, chosen(at.input(0), i, to_output(at, i, t[static_cast<size_t>(i)])));
    return sum;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {{},
            at.active(1) ? to_input(at, 1, chosen(at.input(0), 1, c)) : Variable{},
            at.active(2) ? to_input(at, 2, chosen(at.input(0), 2, c)) : Variable{}};
  }
};

struct Clamp final : Op {
  static inline const OpInfo& info = register_op({"clamp", "y = min(max(x, α), β)", "dy = [α ≤ x ≤ β] dx"});
  Clamp(double low, double high) : Op(info), low(low), high(high) {}
  double low, high;

  std::string attributes() const override { return fmt::format("low={} high={}", low, high); }
  Shape shape(std::span<const Shape> in) const override { return in[0]; }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Tensor clamped(const Tensor& x) const {
    return map_tensor(UnaryKind::at_most, map_tensor(UnaryKind::at_least, x, low), high);
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override { return clamped(in[0]); }
  Variable diagonal(const Linearisation& at, const Variable& t) const {
    const Tensor x = at.input(0).value;
    Tensor unchanged(x.shape(), x.dtype(), x.device());
    backend_of(x).map(BinaryKind::equal, x, clamped(x), unchanged);
    return where_positive(t, unchanged);
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override { return diagonal(at, t[0]); }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override { return {diagonal(at, c)}; }
};

struct Abs final : Unary {
  static inline const OpInfo& info = register_op({"abs", "y = |x|", "dy = sign(x) dx"});
  Abs() : Unary(info, UnaryKind::abs) {}
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    return t * Variable(map_tensor(UnaryKind::sign, at.input(0).value));
  }
};

}  // namespace

Variable maximum(const Variable& a, const Variable& b) { return apply(Maximum(), {a, b}); }
Variable minimum(const Variable& a, const Variable& b) { return apply(Minimum(), {a, b}); }
Variable where(const Tensor& mask, const Variable& a, const Variable& b) {
  const Tensor m = map_tensor(UnaryKind::step, map_tensor(UnaryKind::abs, mask.to(a.dtype())));
  return apply(Where(), {m, a, b});
}
Variable clamp(const Variable& x, double low, double high) {
  require(low <= high, "clamp: the lower bound {} is not below the upper bound {}", low, high);
  return apply(Clamp(low, high), {x});
}
Variable abs(const Variable& x) { return apply(Abs(), {x}); }

}  // namespace fastntk
