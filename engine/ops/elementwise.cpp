#include "engine/ops/elementwise.h"

#include "engine/ops/binary.h"
#include "engine/ops/select.h"
#include "engine/ops/unary.h"

namespace fastntk {
namespace {

// ---- one input ----

struct Scale final : Unary {
  static inline const OpInfo& info = register_op({"scale", "y = α x", "dy = α dx"});
  explicit Scale(double factor) : Unary(info, UnaryKind::scale, factor) {}
  std::string attributes() const override { return fmt::format("factor={}", parameter); }
  Needs needs(ActiveSet) const override { return {}; }
  Variable diagonal(const Linearisation&, const Variable& t) const override { return scale(t, parameter); }
};

struct Shift final : Unary {
  static inline const OpInfo& info = register_op({"shift", "y = x + α", "dy = dx"});
  explicit Shift(double offset) : Unary(info, UnaryKind::shift, offset) {}
  std::string attributes() const override { return fmt::format("offset={}", parameter); }
  Needs needs(ActiveSet) const override { return {}; }
  Variable diagonal(const Linearisation&, const Variable& t) const override { return t; }
};

struct Relu final : Unary {
  static inline const OpInfo& info = register_op({"relu", "y = max(0, x)", "dy = [y > 0] dx"});
  Relu() : Unary(info, UnaryKind::relu) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    return where_positive(t, at.output());
  }
};

struct Exp final : Unary {
  static inline const OpInfo& info = register_op({"exp", "y = exp(x)", "dy = y dx"});
  Exp() : Unary(info, UnaryKind::exp) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override { return t * at.output(); }
};

struct Log final : Unary {
  static inline const OpInfo& info = register_op({"log", "y = log(x)", "dy = dx / x"});
  Log() : Unary(info, UnaryKind::log) {}
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override { return t / at.input(0); }
};

struct Sqrt final : Unary {
  static inline const OpInfo& info = register_op({"sqrt", "y = √x", "dy = dx / 2y"});
  Sqrt() : Unary(info, UnaryKind::sqrt) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override { return 0.5 * (t / at.output()); }
};

struct Square final : Unary {
  static inline const OpInfo& info = register_op({"square", "y = x²", "dy = 2x dx"});
  Square() : Unary(info, UnaryKind::square) {}
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override { return 2.0 * (t * at.input(0)); }
};

struct Sin final : Unary {
  static inline const OpInfo& info = register_op({"sin", "y = sin(x)", "dy = cos(x) dx"});
  Sin() : Unary(info, UnaryKind::sin) {}
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override { return t * cos(at.input(0)); }
};

struct Cos final : Unary {
  static inline const OpInfo& info = register_op({"cos", "y = cos(x)", "dy = −sin(x) dx"});
  Cos() : Unary(info, UnaryKind::cos) {}
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override { return negate(t * sin(at.input(0))); }
};

// x⁰ = 1 is a constant, also at 0.
struct Power final : Unary {
  static inline const OpInfo& info = register_op({"power", "y = x^α", "dy = α x^(α − 1) dx"});
  explicit Power(double exponent) : Unary(info, UnaryKind::power, exponent) {}
  std::string attributes() const override { return fmt::format("exponent={}", parameter); }
  bool linear() const { return parameter == 0 || parameter == 1; }
  Needs needs(ActiveSet) const override { return {.inputs = linear() ? 0U : 1U}; }
  Variable diagonal(const Linearisation& at, const Variable& t) const override {
    if (linear()) return parameter == 1 ? t : Variable{};
    return t * scale(pow(at.input(0), parameter - 1), parameter);
  }
};

// ---- two inputs ----

struct Add final : Binary {
  static inline const OpInfo& info = register_op({"add", "y = a + b", "dy = da + db"});
  Add() : Binary(info, BinaryKind::add) {}
  Needs needs(ActiveSet) const override { return {}; }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable sum;
    for (int i = 0; i < 2; i++)
      if (t[static_cast<size_t>(i)].defined()) sum = add_defined(sum, to_output(at, i, t[static_cast<size_t>(i)]));
    return sum;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_input(at, 0, c) : Variable{}, at.active(1) ? to_input(at, 1, c) : Variable{}};
  }
};

struct Subtract final : Binary {
  static inline const OpInfo& info = register_op({"subtract", "y = a − b", "dy = da − db"});
  Subtract() : Binary(info, BinaryKind::subtract) {}
  Needs needs(ActiveSet) const override { return {}; }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable sum;
    if (t[0].defined()) sum = to_output(at, 0, t[0]);
    if (t[1].defined()) sum = add_defined(sum, negate(to_output(at, 1, t[1])));
    return sum;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_input(at, 0, c) : Variable{}, at.active(1) ? negate(to_input(at, 1, c)) : Variable{}};
  }
};

struct Multiply final : Binary {
  static inline const OpInfo& info = register_op({"multiply", "y = a ⊙ b", "dy = b ⊙ da + a ⊙ db"});
  Multiply() : Binary(info, BinaryKind::multiply) {}
  Needs needs(ActiveSet active) const override { return {.inputs = (active & 2U) >> 1 | (active & 1U) << 1}; }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable sum;
    if (t[0].defined()) sum = to_output(at, 0, t[0]) * at.input(1);
    if (t[1].defined()) sum = add_defined(sum, to_output(at, 1, t[1]) * at.input(0));
    return sum;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_input(at, 0, c * at.input(1)) : Variable{},
            at.active(1) ? to_input(at, 1, c * at.input(0)) : Variable{}};
  }
};

struct Divide final : Binary {
  static inline const OpInfo& info = register_op({"divide", "y = a / b", "dy = (da − y ⊙ db) / b"});
  Divide() : Binary(info, BinaryKind::divide) {}
  Needs needs(ActiveSet active) const override { return {.inputs = 2, .output = (active & 2U) != 0}; }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable numerator;
    if (t[0].defined()) numerator = to_output(at, 0, t[0]);
    if (t[1].defined()) numerator = add_defined(numerator, negate(to_output(at, 1, t[1]) * at.output()));
    return numerator / at.input(1);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const Variable q = c / at.input(1);
    return {at.active(0) ? to_input(at, 0, q) : Variable{},
            at.active(1) ? negate(to_input(at, 1, q * at.output())) : Variable{}};
  }
};

// A factor of zero hides an infinite derivative: b a^(b − 1) where b = 0, and y log a where a = 0.
struct PowerOf final : Binary {
  static inline const OpInfo& info = register_op({"power_of", "y = a^b", "dy = b a^(b − 1) ⊙ da + y log(a) ⊙ db"});
  PowerOf() : Binary(info, BinaryKind::power) {}
  Needs needs(ActiveSet active) const override {
    return {.inputs = ((active & 1U) != 0 ? 3U : 0U) | ((active & 2U) != 0 ? 1U : 0U), .output = (active & 2U) != 0};
  }
  static Variable times_slope(const Linearisation& at, int i, const Variable& t) {
    const Variable a = at.input(0);
    if (i == 1) return where_positive(t * (at.output() * log(a)), abs(a));
    const Variable b = at.input(1);
    return where_positive(t * (b * pow(a, shift(b, -1))), abs(b));
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable sum;
    for (int i = 0; i < 2; i++)
      if (t[static_cast<size_t>(i)].defined())
        sum = add_defined(sum, times_slope(at, i, to_output(at, i, t[static_cast<size_t>(i)])));
    return sum;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_input(at, 0, times_slope(at, 0, c)) : Variable{},
            at.active(1) ? to_input(at, 1, times_slope(at, 1, c)) : Variable{}};
  }
};

struct WherePositive final : Binary {
  static inline const OpInfo& info = register_op({"where_positive", "y = [b > 0] ⊙ a", "dy = [b > 0] ⊙ da"});
  WherePositive() : Binary(info, BinaryKind::where_positive) {}
  Needs needs(ActiveSet active) const override { return {.inputs = (active & 1U) << 1}; }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return t[0].defined() ? where_positive(to_output(at, 0, t[0]), at.input(1)) : Variable{};
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_input(at, 0, where_positive(c, at.input(1))) : Variable{}, {}};
  }
};

}  // namespace

Variable add(const Variable& a, const Variable& b) { return apply(Add(), {a, b}); }
Variable subtract(const Variable& a, const Variable& b) { return apply(Subtract(), {a, b}); }
Variable multiply(const Variable& a, const Variable& b) { return apply(Multiply(), {a, b}); }
Variable divide(const Variable& a, const Variable& b) { return apply(Divide(), {a, b}); }
Variable where_positive(const Variable& a, const Variable& b) { return apply(WherePositive(), {a, b}); }
Variable scale(const Variable& x, double factor) { return apply(Scale(factor), {x}); }
Variable shift(const Variable& x, double offset) { return apply(Shift(offset), {x}); }
Variable negate(const Variable& x) { return scale(x, -1); }
Variable relu(const Variable& x) { return apply(Relu(), {x}); }
Variable exp(const Variable& x) { return apply(Exp(), {x}); }
Variable log(const Variable& x) { return apply(Log(), {x}); }
Variable sqrt(const Variable& x) { return apply(Sqrt(), {x}); }
Variable square(const Variable& x) { return apply(Square(), {x}); }
Variable sin(const Variable& x) { return apply(Sin(), {x}); }
Variable cos(const Variable& x) { return apply(Cos(), {x}); }
Variable pow(const Variable& x, double exponent) { return apply(Power(exponent), {x}); }
Variable pow(const Variable& a, const Variable& b) { return apply(PowerOf(), {a, b}); }

Variable add_defined(const Variable& a, const Variable& b) { return !a.defined() ? b : !b.defined() ? a : add(a, b); }

}  // namespace fastntk
