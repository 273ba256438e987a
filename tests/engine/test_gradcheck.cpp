#include "engine/gradcheck.h"

#include <catch2/catch.hpp>

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/random.h"

using namespace fastntk;

namespace {

Tensor normal(uint64_t seed, const Shape& shape) { return Random(seed).normal_tensor(shape, DType::float64); }

enum class Defect {
  none,
  jvp_sign,
  vjp_sign,
  vjp_term,
  vjp_stack,
  needs,
  shape,
  second_order,
  not_finite,
};

// y = a ⊙ exp(b), with one defect planted.
struct Planted final : Op {
  static inline const OpInfo& info = register_op({"test_planted", "y = a ⊙ exp(b)", "dy = exp(b) ⊙ da + y ⊙ db"});
  explicit Planted(Defect defect) : Op(info), defect(defect) {}
  Defect defect;

  Shape shape(std::span<const Shape> in) const override { return broadcast(in[0], in[1], "test_planted"); }
  Needs needs(ActiveSet active) const override {
    if (defect == Defect::needs) return {.inputs = active == 3 ? 2U : 0U, .output = (active & 2U) != 0};
    return {.inputs = (active & 1U) != 0 ? 2U : 0U, .output = (active & 2U) != 0};
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return multiply(in[0], exp(in[1])).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable dy;
    if (t[0].defined()) dy = exp(at.input(1)) * t[0];
    if (t[1].defined()) dy = add_defined(dy, at.output() * t[1]);
    return defect == Defect::jvp_sign ? negate(dy) : dy;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const auto to = [&](int i, const Variable& v) { return sum_to(v, at.input_shape(i), at.output_shape().rank()); };
    Variable y = at.active(1) ? at.output() : Variable{};
    if (defect == Defect::second_order && y.defined()) y = y.constant();
    std::vector<Variable> out = {at.active(0) ? to(0, exp(at.input(1)) * c) : Variable{},
                                 at.active(1) ? to(1, y * c) : Variable{}};
    if (defect == Defect::vjp_sign && at.active(0)) out[0] = negate(out[0]);
    if (defect == Defect::vjp_term && at.active(0)) out[1] = {};
    if (defect == Defect::vjp_stack && at.active(0) && out[0].rank() > at.input_shape(0).rank() &&
        out[0].extent(0) == 3)
      out[0] = scale(out[0], 1.0 + 1e-6);
    if (defect == Defect::shape && at.active(1)) out[1] = at.output() * c;
    if (defect == Defect::not_finite && at.active(0)) out[0] = log(scale(out[0], 0)) * out[0];
    return out;
  }
};

// An op with a kernel for its vjp and no second derivative.
struct Kernel final : Op {
  static inline const OpInfo& info = register_op({"test_first_order", "y = x³", "dy = 3 x² dx"});
  Kernel() : Op(info) {}
  Shape shape(std::span<const Shape> in) const override { return in[0]; }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return multiply(in[0], square(in[0])).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return scale(square(at.input(0)) * t[0], 3);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {scale(square(at.input(0)) * c, 3)};
  }
  bool first_order_only() const override { return true; }
};

}  // namespace

TEST_CASE("gradcheck passes an op and functions that are right") {
  const GradcheckReport op = gradcheck(Planted(Defect::none), {normal(1, {2, 5}), normal(2, {1, 5})});
  INFO(op.str());
  CHECK(op.ok());
  CHECK(op.checks > 1000);
  CHECK(op.note.empty());
  CHECK(op.worst <= 1);
  const Tensor labels = Tensor::from<int64_t>({3}, {1, 0, 3});
  const GradcheckReport f = gradcheck([&](const Variable& x, const Variable& y) { return cross_entropy(x, y.value); },
                                      {Random(3).normal_tensor({3, 4}), labels});
  INFO(f.str());
  CHECK(f.ok());
  CHECK(gradcheck([](const Variable& x) { return softmax(x); }, normal(4, {2, 3})).ok());
}

TEST_CASE("gradcheck finds planted defects and names the worst element") {
  struct Case {
    Defect defect;
    const char* expected;
  };
  for (const auto& [defect, expected] :
       {Case{Defect::jvp_sign, "jvp: derivative of element ["}, Case{Defect::vjp_sign, "vjp: derivative of element ["},
        Case{Defect::vjp_term, "vjp: derivative of element ["},
        Case{Defect::vjp_stack, "stack: cotangent 0 of a stack"},
        Case{Defect::needs, "input 0 alone, first order, exception: test_planted: its linear map asked for input 1"},
        Case{Defect::shape, "exception: vjp gave input 1 a cotangent"},
        Case{Defect::second_order, "second order, jvp: derivative of element ["},
        Case{Defect::not_finite, "vjp: derivative of element ["}}) {
    const GradcheckReport report = gradcheck(Planted(defect), {normal(1, {2, 5}), normal(2, {1, 5})});
    INFO(report.str() << "expected: " << expected);
    CHECK(!report.ok());
    CHECK(report.str().find(expected) != std::string::npos);
  }
  // The element is the wrong one: only [1, 2] is.
  const auto f = [](const Variable& x) {
    return concat({slice(x, -2, 0, 1), slice(x, -2, 1, 2) * x.value.slice(-2, 1, 2)}, -2);
  };
  Tensor x = Tensor::zeros({2, 3}, DType::float64);
  x.mutable_data<double>()[5] = 4;
  const GradcheckReport report = gradcheck(f, x);
  CHECK(report.failures.at(0).starts_with(
      "jvp: derivative of element [1, 2] of the value by element [1, 2] of input 0: 4, central differences give 8"));
}

TEST_CASE("gradcheck says what it did not check, and what it cannot") {
  const GradcheckReport report = gradcheck(Kernel(), {normal(1, {4})});
  CHECK(report.ok());
  CHECK(report.note == "second order was not checked: test_first_order has no second derivative");
  CHECK(gradcheck(Kernel(), {normal(1, {4})}, {.second_order = false}).note.empty());
  CHECK_THROWS_WITH(gradcheck(Kernel(), {Tensor::zeros({2}, DType::int64)}),
                    "gradcheck needs an input of float32 or float64");
  // A large input is sampled.
  const GradcheckReport large = gradcheck(Kernel(), {normal(1, {100, 100})}, {.elements = 4});
  CHECK(large.ok());
  CHECK(large.checks < 200000);
}
