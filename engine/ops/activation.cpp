#include "engine/ops/activation.h"

#include <numbers>

#include "engine/ops/elementwise.h"
#include "engine/ops/select.h"
#include "engine/ops/unary.h"

namespace fastntk {
namespace {

const char* name_of(GeluApproximation approximate) { return approximate == GeluApproximation::none ? "none" : "tanh"; }

struct Tanh final : Unary {
  static inline const OpInfo& info = register_op({"tanh", "y = tanh(x)", "dy = (1 − y²) dx"});
  Tanh() : Unary(info, UnaryKind::tanh) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    return t * shift(negate(square(at.output())), 1);
  }
};

struct Sigmoid final : Unary {
  static inline const OpInfo& info = register_op({"sigmoid", "y = 1 / (1 + exp(−x))", "dy = y (1 − y) dx"});
  Sigmoid() : Unary(info, UnaryKind::sigmoid) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    const Variable y = at.output();
    return t * (y * shift(negate(y), 1));
  }
};

// With s = sigmoid(x): dy = s (1 + x (1 − s)) dx.
struct Silu final : Unary {
  static inline const OpInfo& info = register_op({"silu", "y = x σ(x)", "dy = σ(x) (1 + x (1 − σ(x))) dx"});
  Silu() : Unary(info, UnaryKind::silu) {}
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    const Variable x = at.input(0), s = sigmoid(x);
    return t * (s * shift(x * shift(negate(s), 1), 1));
  }
};

// dy = σ(β x) dx, and dx where y = x.
struct Softplus final : Unary {
  static inline const OpInfo& info = register_op({"softplus", "y = log(1 + exp(β x)) / β", "dy = σ(β x) dx"});
  Softplus(double beta, double threshold) : Unary(info, UnaryKind::softplus), beta(beta), threshold(threshold) {}
  double beta, threshold;
  std::string attributes() const override { return fmt::format("beta={} threshold={}", beta, threshold); }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  // 1 where y = x.
  Tensor linear(const Tensor& scaled) const {
    return map_tensor(UnaryKind::step, map_tensor(UnaryKind::shift, scaled, -threshold));
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Tensor scaled = map_tensor(UnaryKind::scale, in[0], beta);
    const Variable curve = scale(map_tensor(UnaryKind::softplus, scaled), 1 / beta);
    return where(linear(scaled), in[0], curve).value;
  }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    const Variable scaled = scale(at.input(0), beta);
    return t * where(linear(scaled.value), Tensor::scalar(1, t.dtype(), t.value.device()), sigmoid(scaled));
  }
};

struct Erf final : Unary {
  static inline const OpInfo& info = register_op({"erf", "y = erf(x)", "dy = 2/√π exp(−x²) dx"});
  Erf() : Unary(info, UnaryKind::erf) {}
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    return t * scale(exp(negate(square(at.input(0)))), 2 * std::numbers::inv_sqrtpi);
  }
};

// g'(x) is computed once for all of a stack of tangents or cotangents.
struct Gelu final : Unary {
  static inline const OpInfo& info = register_op({"gelu", "y = x Φ(x)", "dy = (Φ(x) + x φ(x)) dx"});
  explicit Gelu(GeluApproximation approximate)
      : Unary(info, approximate == GeluApproximation::none ? UnaryKind::gelu : UnaryKind::gelu_tanh),
        approximate(approximate) {}
  GeluApproximation approximate;
  std::string attributes() const override { return fmt::format("approximate={}", name_of(approximate)); }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    return t * gelu_derivative(at.input(0), approximate);
  }
};

// With none: y' = (2 − x²) φ(x). With tanh, t = tanh u(x) and u = a (x + b x³): y = ½ (1 + t) + ½ x (1 − t²) u', so
// y' = ½ (1 − t²) (2 u' + x u'' − 2 t x u'²) where u' = a (1 + 3b x²), x u'' = 6ab x².
struct GeluDerivative final : Unary {
  static inline const OpInfo& info = register_op({"gelu_derivative", "y = Φ(x) + x φ(x)", "dy = (2 − x²) φ(x) dx"});
  explicit GeluDerivative(GeluApproximation approximate)
      : Unary(info,
              approximate == GeluApproximation::none ? UnaryKind::gelu_derivative : UnaryKind::gelu_tanh_derivative),
        approximate(approximate) {}
  GeluApproximation approximate;
  std::string attributes() const override { return fmt::format("approximate={}", name_of(approximate)); }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& v) const override {
    const Variable x = at.input(0), squared = square(x);
    if (approximate == GeluApproximation::none) {
      const double height = std::numbers::inv_sqrtpi / std::numbers::sqrt2;  // φ(0)
      return v * (shift(negate(squared), 2) * scale(exp(scale(squared, -0.5)), height));
    }
    const double a = std::numbers::sqrt2 * std::numbers::inv_sqrtpi, b = 0.044715;
    const Variable slope = shift(scale(squared, 3 * a * b), a);
    const Variable t = tanh(x * shift(scale(squared, a * b), a));
    const Variable bracket = 2.0 * slope + scale(squared, 6 * a * b) - 2.0 * (t * x * square(slope));
    return v * (scale(shift(negate(square(t)), 1), 0.5) * bracket);
  }
};

}  // namespace

Variable gelu(const Variable& x, GeluApproximation approximate) { return apply(Gelu(approximate), {x}); }
Variable gelu_derivative(const Variable& x, GeluApproximation approximate) {
  return apply(GeluDerivative(approximate), {x});
}
Variable tanh(const Variable& x) { return apply(Tanh(), {x}); }
Variable sigmoid(const Variable& x) { return apply(Sigmoid(), {x}); }
Variable silu(const Variable& x) { return apply(Silu(), {x}); }
Variable softplus(const Variable& x, double beta, double threshold) {
  require(beta > 0, "softplus: beta must be positive, got {}", beta);
  return apply(Softplus(beta, threshold), {x});
}
Variable erf(const Variable& x) { return apply(Erf(), {x}); }

}  // namespace fastntk
