// Activation functions. Rows of 19 are longer than a vector register and no multiple of one.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/ops/activation.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

Sample activation_sample(const std::string& op, const std::string& note, Variable (*function)(const Variable&),
                         double (*reference)(double), bool keeps_output = false, Draw draw = Draw::normal) {
  return {.op = op,
          .note = note,
          .inputs = {{{2, 5, 19}, draw}},
          .function = [=](const Values& v) { return function(v[0]); },
          .reference = [=](const Arrays& a) { return unary(a[0], reference); },
          .saved = [=](ActiveSet) { return Saved{.inputs = !keeps_output, .output = keeps_output}; },
          .samples = 2};
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }
double normal_pdf(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi); }

const double a = std::sqrt(2 / std::numbers::pi), b = 0.044715;
double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(a * (x + b * x * x * x))); }
double gelu_tanh_derivative(double x) {
  const double t = std::tanh(a * (x + b * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * b * x * x);
}

Sample softplus_sample(const std::string& note, double beta, double threshold) {
  Sample s = activation_sample("softplus", note, {}, {});
  s.function = [=](const Values& v) { return softplus(v[0], beta, threshold); };
  s.reference = [=](const Arrays& x) {
    return unary(x[0], [=](double v) { return beta * v > threshold ? v : std::log1p(std::exp(beta * v)) / beta; });
  };
  s.kink_distance = [=](const Arrays& x) {
    double d = 1;
    for (const double v : x[0].values) d = std::min(d, std::abs(v - threshold / beta));
    return d;
  };
  s.refusals = {{{{2, 3}}, [](const Values& v) { return softplus(v[0], 0); }}};
  return s;
}

}  // namespace

Samples activation_samples() {
  return {
      activation_sample(
          "tanh", "", tanh, [](double x) { return std::tanh(x); }, true),
      activation_sample(
          "sigmoid", "", sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, true),
      activation_sample("silu", "", silu, [](double x) { return x / (1 + std::exp(-x)); }),
      softplus_sample("", 1, 20),
      softplus_sample("with a threshold", 2, 1.5),
      activation_sample("erf", "", erf, [](double x) { return std::erf(x); }),
      activation_sample(
          "gelu", "exact", [](const Variable& x) { return gelu(x); }, [](double x) { return x * normal_cdf(x); }),
      activation_sample(
          "gelu", "tanh", [](const Variable& x) { return gelu(x, GeluApproximation::tanh); }, gelu_tanh),
      activation_sample(
          "gelu_derivative", "exact", [](const Variable& x) { return gelu_derivative(x); },
          [](double x) { return normal_cdf(x) + x * normal_pdf(x); }),
      activation_sample(
          "gelu_derivative", "tanh", [](const Variable& x) { return gelu_derivative(x, GeluApproximation::tanh); },
          gelu_tanh_derivative),
  };
}

}  // namespace fastntk::test
