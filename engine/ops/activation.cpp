#include "engine/ops/activation.h"

#include <numbers>

#include "engine/ops/elementwise.h"
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
Variable erf(const Variable& x) { return apply(Erf(), {x}); }

}  // namespace fastntk
