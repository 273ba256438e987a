// The worked example of docs/add-an-op.md: an op and its entry in the sample database. The page quotes this file.
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/op_checks.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

struct TimesExp final : Op {
  static inline const OpInfo& info = register_op({"test_times_exp", "y = a ⊙ exp(b)", "dy = exp(b) ⊙ da + y ⊙ db"});
  TimesExp() : Op(info) {}

  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() == in[1].rank(), "{}: inputs of one rank, got {} and {}", name(), in[0].str(), in[1].str());
    return broadcast(in[0], in[1], name().c_str());
  }
  // da needs b, and db needs y: bit i of `inputs` is input i.
  Needs needs(ActiveSet active) const override {
    return {.inputs = (active & 1U) != 0 ? 2U : 0U, .output = (active & 2U) != 0};
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return (Variable(in[0]) * exp(in[1])).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable dy;
    if (t[0].defined()) dy = exp(at.input(1)) * t[0];
    if (t[1].defined()) dy = add_defined(dy, at.output() * t[1]);
    return dy;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const auto to_input = [&](int i, const Variable& v) {
      return sum_to(v, at.input_shape(i), at.output_shape().rank());
    };
    return {at.active(0) ? to_input(0, exp(at.input(1)) * c) : Variable{},
            at.active(1) ? to_input(1, at.output() * c) : Variable{}};
  }
};

Variable times_exp(const Variable& a, const Variable& b) { return apply(TimesExp(), {a, b}); }

Sample times_exp_sample() {
  return {.op = "test_times_exp",
          .note = "a parameter",
          .inputs = {{{2, 5, 19}}, {{1, 1, 19}}},
          .function = [](const Values& v) { return times_exp(v[0], v[1]); },
          .reference =
              [](const Arrays& x) { return binary(x[0], x[1], [](double a, double b) { return a * std::exp(b); }); },
          .saved = [](ActiveSet active) { return Saved{.inputs = (active & 1U) << 1, .output = (active & 2U) != 0}; },
          .samples = 2,
          .refusals = {{{{2, 3}, {2, 4}}}, {{{2, 3}, {3}}}}};
}

}  // namespace

TEST_CASE("the worked example of docs/add-an-op.md passes the op tests", "[ops]") {
  const Sample sample = times_exp_sample();
  Report report;
  check_sample(sample, report);
  for (const Case& c : full_grid(sample)) check_case(sample, c, report);
  for (const std::string& failure : report.failures) FAIL_CHECK(failure);
  CHECK(report.checks > 0);
}
