// Element-by-element ops. Rows of 19 are longer than a vector register and no multiple of one.
#include <algorithm>
#include <cmath>

#include "engine/ops/elementwise.h"
#include "engine/ops/logaddexp.h"
#include "engine/recompute.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

// y = f(x), with what its record saves: nothing, its input or its output.
enum class Keeps { nothing, input, output };

Sample unary_sample(const std::string& op, const std::string& note, Draw draw, Variable (*function)(const Variable&),
                    double (*reference)(double), Keeps keeps) {
  return {.op = op,
          .note = note,
          .inputs = {{{2, 5, 19}, draw}},
          .function = [=](const Values& v) { return function(v[0]); },
          .reference = [=](const Arrays& a) { return unary(a[0], reference); },
          .saved = [=](ActiveSet) { return Saved{.inputs = keeps == Keeps::input, .output = keeps == Keeps::output}; },
          .samples = 2};
}

// One binary op: its name, its formula, where its inputs are drawn, and what it saves.
struct BinaryOp {
  std::string name;
  Variable (*function)(const Variable&, const Variable&);
  double (*reference)(double, double);
  Draw second;
  Saved (*saved)(ActiveSet);
};

Saved crossed(ActiveSet active) { return {.inputs = (active & 1U) << 1 | (active & 2U) >> 1}; }

const std::vector<BinaryOp>& binary_ops() {
  static const std::vector<BinaryOp> ops = {
      {"add", add, [](double a, double b) { return a + b; }, Draw::normal, [](ActiveSet) { return Saved{}; }},
      {"subtract", subtract, [](double a, double b) { return a - b; }, Draw::normal, [](ActiveSet) { return Saved{}; }},
      {"multiply", multiply, [](double a, double b) { return a * b; }, Draw::normal, crossed},
      {"divide", divide, [](double a, double b) { return a / b; }, Draw::positive,
       [](ActiveSet active) { return Saved{.inputs = 2, .output = (active & 2U) != 0}; }},
      {"where_positive", where_positive, [](double a, double b) { return b > 0 ? a : 0; }, Draw::off_zero,
       [](ActiveSet active) { return Saved{.inputs = (active & 1U) << 1}; }},
      {"logaddexp", logaddexp,
       [](double a, double b) { return std::max(a, b) + std::log1p(std::exp(-std::abs(a - b))); }, Draw::normal,
       [](ActiveSet active) { return Saved{.inputs = active, .output = true}; }},
  };
  return ops;
}

Sample binary_sample(const BinaryOp& op, const std::string& note, const Shape& a, const Shape& b, int64_t samples) {
  return {.op = op.name,
          .note = note,
          .inputs = {{a}, {b, op.second}},
          .function = [=](const Values& v) { return op.function(v[0], v[1]); },
          .reference = [=](const Arrays& x) { return binary(x[0], x[1], op.reference); },
          .saved = op.saved,
          .samples = samples,
          .refusals = {{{{2, 3}, {2, 4}}}, {{{2, 3}, {3, 2}}}}};
}

Sample power_sample(double exponent, Draw draw) {
  const bool linear = exponent == 0 || exponent == 1;
  Sample s =
      unary_sample("power", fmt::format("exponent {}", exponent), draw, {}, {}, linear ? Keeps::nothing : Keeps::input);
  s.function = [=](const Values& v) { return pow(v[0], exponent); };
  s.reference = [=](const Arrays& a) { return unary(a[0], [=](double x) { return std::pow(x, exponent); }); };
  return s;
}

Sample power_of_sample(const std::string& note, const Shape& a, const Shape& b, int64_t samples) {
  return {
      .op = "power_of",
      .note = note,
      .inputs = {{a, Draw::positive}, {b, Draw::off_zero}},
      .function = [](const Values& v) { return pow(v[0], v[1]); },
      .reference =
          [](const Arrays& x) { return binary(x[0], x[1], [](double p, double q) { return std::pow(p, q); }); },
      .saved =
          [](ActiveSet active) { return Saved{.inputs = (active & 1U) != 0 ? 3U : 1U, .output = (active & 2U) != 0}; },
      .samples = samples,
      .refusals = {{{{2, 3}, {2, 4}}}, {{{2, 3}, {3, 2}}}}};
}

}  // namespace

Samples elementwise_samples() {
  Samples all = {
      unary_sample(
          "relu", "", Draw::off_zero, relu, [](double x) { return x > 0 ? x : 0; }, Keeps::output),
      unary_sample(
          "exp", "", Draw::normal, exp, [](double x) { return std::exp(x); }, Keeps::output),
      unary_sample(
          "log", "", Draw::positive, log, [](double x) { return std::log(x); }, Keeps::input),
      unary_sample(
          "sqrt", "", Draw::positive, sqrt, [](double x) { return std::sqrt(x); }, Keeps::output),
      unary_sample(
          "square", "", Draw::normal, square, [](double x) { return x * x; }, Keeps::input),
      unary_sample(
          "sin", "", Draw::normal, sin, [](double x) { return std::sin(x); }, Keeps::input),
      unary_sample(
          "cos", "", Draw::normal, cos, [](double x) { return std::cos(x); }, Keeps::input),
      unary_sample(
          "scale", "negate", Draw::normal, negate, [](double x) { return -x; }, Keeps::nothing),
      unary_sample(
          "scale", "by 1.7", Draw::normal, [](const Variable& x) { return scale(x, 1.7); },
          [](double x) { return 1.7 * x; }, Keeps::nothing),
      unary_sample(
          "shift", "", Draw::normal, [](const Variable& x) { return shift(x, -0.3); }, [](double x) { return x - 0.3; },
          Keeps::nothing),
  };
  for (const double exponent : {2.5, 1.0, 0.0, -1.5}) all.push_back(power_sample(exponent, Draw::positive));
  all.push_back(power_sample(3, Draw::normal));
  all.push_back(power_of_sample("equal shapes", {2, 3, 11}, {2, 3, 11}, 2));
  all.push_back(power_of_sample("a parameter", {2, 3, 7}, {1, 1, 7}, 2));
  all.push_back(power_of_sample("both broadcast", {2, 3, 1}, {1, 4}, 0));
  for (const BinaryOp& op : binary_ops()) {
    all.push_back(binary_sample(op, "equal shapes", {2, 5, 19}, {2, 5, 19}, 2));
    all.push_back(binary_sample(op, "a parameter", {2, 3, 7}, {1, 1, 7}, 2));
    all.push_back(binary_sample(op, "a parameter first", {1, 3, 1}, {2, 3, 7}, 2));
    all.push_back(binary_sample(op, "both broadcast", {2, 3, 1}, {1, 4}, 0));
    all.push_back(binary_sample(op, "a scalar", {}, {3, 2}, 0));
    all.push_back(binary_sample(op, "no elements", {0, 3}, {1, 3}, 0));
  }
  // Recomputation, of a function in which the derivative by either input needs both.
  const auto body = [](const Variable& a, const Variable& b) { return exp(a * b); };
  all.push_back(
      {.op = "recompute",
       .note = "exp(a ⊙ b)",
       .inputs = {{{2, 5, 7}}, {{1, 1, 7}}},
       .function = [=](const Values& v) { return recompute(body, v); },
       .reference =
           [](const Arrays& x) { return binary(x[0], x[1], [](double a, double b) { return std::exp(a * b); }); },
       .saved = [](ActiveSet) { return Saved{.inputs = 3}; },
       .samples = 2,
       .refusals = {{{{2, 3}, {2, 4}}}},
       .called = "multiply"});
  return all;
}

}  // namespace fastntk::test
