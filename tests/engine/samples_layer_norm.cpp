// Norms within a sample.
#include <cmath>

#include "engine/ops/layer_norm.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

constexpr double epsilon = 1e-3;

// gamma or beta [1 or N, C] as [1 or N, 1, …, C], so that it broadcasts over x.
Array beside(Array parameter, const Array& x) {
  Shape shape = Shape::filled(x.shape.rank(), 1);
  shape[0] = parameter.shape[0], shape[-1] = parameter.shape[1];
  parameter.shape = shape;
  return parameter;
}

Array mean_over(const Array& x, const std::vector<int>& axes) {
  const Array sum = sum_over(x, axes);
  const double count = static_cast<double>(x.values.size()) / static_cast<double>(sum.values.size());
  return unary(sum, [=](double s) { return s / count; });
}

Array normalised(const Array& x, const std::vector<int>& axes, bool centre) {
  const Array centred = centre ? binary(x, mean_over(x, axes), std::minus<>()) : x;
  const Array variance = mean_over(unary(centred, [](double v) { return v * v; }), axes);
  return binary(centred, variance, [](double v, double s) { return v / std::sqrt(s + epsilon); });
}

// x̂ ⊙ γ + β with as many of γ, β as there are.
Array affine(const Array& xhat, const Arrays& a) {
  Array y = xhat;
  if (a.size() > 1) y = binary(y, beside(a[1], xhat), std::multiplies<>());
  if (a.size() > 2) y = binary(y, beside(a[2], xhat), std::plus<>());
  return y;
}

// `coefficients` of γ and β, each [rows, D].
Sample row_sample(const std::string& op, const std::string& note, const Shape& x, int coefficients, int64_t rows) {
  const bool centre = op == "layer_norm";
  const int64_t D = x[-1];
  Sample s{.op = op,
           .note = note,
           .inputs = {{x, Draw::normal, true, 0, 0}},  // equal elements of a row have no direction
           .function =
               [=](const Values& v) {
                 const Variable gamma = v.size() > 1 ? v[1] : Variable{}, beta = v.size() > 2 ? v[2] : Variable{};
                 return centre ? layer_norm(v[0], gamma, beta, epsilon) : rms_norm(v[0], gamma, epsilon);
               },
           .reference = [=](const Arrays& a) { return affine(normalised(a[0], {-1}, centre), a); },
           // x for dx and dγ, γ for dx; mean and rstd beside x.
           .saved =
               [=](ActiveSet active) {
                 Saved saved;
                 if (active & 3U) saved.inputs |= 1U;
                 if (active & 1U && coefficients > 0) saved.inputs |= 2U;
                 Shape statistics = x;
                 statistics[-1] = 1;
                 if (active & 3U) saved.extras = std::vector<Shape>(centre ? 2 : 1, statistics);
                 return saved;
               },
           .samples = x[0]};
  for (int i = 0; i < coefficients; i++) s.inputs.push_back({{rows, D}});
  const auto with = [&](size_t i, const Shape& shape) {
    std::vector<Shape> shapes;
    for (const Input& input : s.inputs) shapes.push_back(input.shape);
    shapes[i] = shape;
    return Refusal{shapes};
  };
  s.refusals = {with(0, {D})};
  for (size_t i = 1; i < s.inputs.size(); i++)
    s.refusals.insert(s.refusals.end(), {with(i, {D}), with(i, {x[0] + 1, D}), with(i, {1, D + 1})});
  return s;
}

Sample group_sample(const std::string& note, const Shape& x, int64_t groups, bool affine_map, int64_t rows) {
  const int64_t C = x[-1], positions = x.slice(1, x.rank() - 1).elements();
  const Shape grouped{x[0], positions, groups, C / groups};
  Sample s{.op = groups == C ? "instance_norm" : "group_norm",
           .note = note,
           .inputs = {{x, Draw::normal, true, 0, 0}},
           .function =
               [=](const Values& v) {
                 const Variable gamma = affine_map ? v[1] : Variable{}, beta = affine_map ? v[2] : Variable{};
                 return groups == C ? instance_norm(v[0], gamma, beta, epsilon)
                                    : group_norm(v[0], groups, gamma, beta, epsilon);
               },
           .reference =
               [=](const Arrays& a) {
                 Array in = a[0];
                 in.shape = grouped;
                 Array xhat = normalised(in, {1, 3}, true);
                 xhat.shape = x;
                 return affine(xhat, a);
               },
           .samples = x[0],
           .composition = true};
  if (!affine_map) {
    s.refusals = {{{Shape{C}}}};
    return s;
  }
  for (int i = 0; i < 2; i++) s.inputs.push_back({{rows, C}});
  s.refusals = {{{Shape{C}, {1, C}, {1, C}}}};
  return s;
}

}  // namespace

Samples layer_norm_samples() {
  return {
      row_sample("layer_norm", "tokens", {2, 3, 7}, 2, 1),
      row_sample("layer_norm", "parameters by sample", {2, 3, 7}, 2, 2),
      row_sample("layer_norm", "no parameters", {2, 3, 7}, 0, 1),
      row_sample("layer_norm", "gamma alone", {2, 3, 7}, 1, 1),
      row_sample("layer_norm", "vectors", {3, 19}, 2, 1),
      row_sample("layer_norm", "rows of registers and a rest", {2, 2, 83}, 2, 2),
      row_sample("layer_norm", "images", {2, 2, 3, 5}, 2, 1),
      row_sample("rms_norm", "tokens", {2, 3, 7}, 1, 1),
      row_sample("rms_norm", "parameters by sample", {2, 3, 21}, 1, 2),
      row_sample("rms_norm", "no parameters", {2, 3, 7}, 0, 1),
      group_sample("group norm", {2, 2, 3, 6}, 2, true, 1),
      group_sample("group norm, parameters by sample", {2, 2, 2, 6}, 3, true, 2),
      group_sample("group norm without parameters", {2, 5, 4}, 2, false, 1),
      group_sample("instance norm", {2, 2, 3, 4}, 4, true, 1),
      group_sample("instance norm without parameters", {2, 7, 3}, 3, false, 1),
  };
}

}  // namespace fastntk::test
