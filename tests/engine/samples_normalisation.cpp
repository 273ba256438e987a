// Batch normalisation.
#include <algorithm>
#include <cmath>

#include "engine/ops/normalisation.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

constexpr double epsilon = 1e-3;

// gamma or beta [1 or N, C] as [1 or N, 1, …, C], so that it broadcasts over x.
Array by_channel(Array parameter, const Array& x) {
  Shape shape = Shape::filled(x.shape.rank(), 1);
  shape[0] = parameter.shape[0], shape[-1] = parameter.shape[1];
  parameter.shape = shape;
  return parameter;
}

Array normalised(const Array& x, const Array& mean, const Array& variance) {
  const Array deviation = unary(variance, [](double v) { return std::sqrt(v + epsilon); });
  return binary(binary(x, mean, std::minus<>()), deviation, std::divides<>());
}

Array affine(const Array& x, const Array& gamma, const Array& beta) {
  return binary(binary(x, by_channel(gamma, x), std::multiplies<>()), by_channel(beta, x), std::plus<>());
}

// Inputs: x, gamma, beta, mean, variance and perhaps the residual.
Array before_relu(const Arrays& a) {
  const Array y = affine(normalised(a[0], a[3], a[4]), a[1], a[2]);
  return a.size() > 5 ? binary(y, a[5], std::plus<>()) : y;
}

Sample eval_sample(const std::string& note, const Shape& x, int64_t rows, bool residual, bool relu) {
  const int64_t channels = x[-1];
  Sample s{
      .op = "batch_norm_eval",
      .note = note,
      .inputs = {{x},
                 {{rows, channels}},
                 {{rows, channels}},
                 {{channels}, Draw::normal, false},
                 {{channels}, Draw::positive, false}},
      .function =
          [=](const Values& v) {
            return batch_norm_eval(v[0], v[1], v[2], v[3].value, v[4].value, epsilon, residual ? v[5] : Variable{},
                                   relu);
          },
      .reference =
          [=](const Arrays& a) { return unary(before_relu(a), [=](double y) { return relu ? std::max(0.0, y) : y; }); },
      // The record's inputs are x, γ, β and the residual. x is needed for dγ, γ for dx, y for the ReLU's mask.
      .saved =
          [=](ActiveSet active) { return Saved{.inputs = (active & 1U) << 1 | (active & 2U) >> 1, .output = relu}; },
      .samples = x[0]};
  const auto with = [&](size_t i, const Shape& shape) {
    std::vector<Shape> shapes;
    for (const Input& input : s.inputs) shapes.push_back(input.shape);
    if (residual) shapes.push_back(x);
    shapes[i] = shape;
    return Refusal{shapes};
  };
  s.refusals = {with(0, {4, channels + 1}), with(0, {channels}), with(1, {channels}), with(2, {x[0] + 1, channels}),
                with(3, {channels + 1})};
  if (residual) s.refusals.push_back(with(5, {1, channels}));
  if (residual) s.inputs.push_back({x});
  if (relu)
    s.kink_distance = [](const Arrays& a) {
      double nearest = 1;
      for (const double y : before_relu(a).values) nearest = std::min(nearest, std::abs(y));
      return nearest;
    };
  return s;
}

Sample train_sample(const std::string& note, const Shape& x, int repeated) {
  const int64_t channels = x[-1];
  return {.op = "batch_norm_train",
          .note = note,
          .inputs = {{x, Draw::normal, true, 0, repeated}, {{1, channels}}, {{1, channels}}},
          .function =
              [=](const Values& v) {
                const Tensor mean = Tensor::zeros({channels}, v[0].dtype(), v[0].value.device());
                const Tensor variance = Tensor::full({channels}, 1, v[0].dtype(), v[0].value.device());
                return batch_norm_train(v[0], v[1], v[2], mean, variance, 0.1, epsilon);
              },
          .reference =
              [](const Arrays& a) {
                return affine(normalised(a[0], channel_mean(a[0]), channel_variance(a[0])), a[1], a[2]);
              },
          // x and γ for dx, x for dγ; the mean and 1 / √(variance + ε) for both.
          .saved =
              [=](ActiveSet active) {
                Saved s{.inputs = (active & 1U) * 3 | (active & 2U) >> 1};
                if (active & 3U) s.extras = {{channels}, {channels}};
                return s;
              },
          .samples = x[0],
          .mixes_samples = true,
          .refusals = {{{x, {1, channels + 1}, {1, channels}}},
                       {{x, {1, channels}, {x[0], channels}}},
                       {{{1, channels}, {1, channels}, {1, channels}}}}};
}

}  // namespace

Samples normalisation_samples() {
  return {
      eval_sample("images", {2, 3, 2, 5}, 1, false, false),
      eval_sample("vectors", {2, 19}, 1, false, false),
      eval_sample("parameters by sample", {2, 3, 2, 5}, 2, false, false),
      eval_sample("ReLU", {2, 3, 2, 5}, 1, false, true),
      eval_sample("residual", {2, 3, 2, 5}, 1, true, false),
      eval_sample("residual and ReLU", {2, 2, 3, 5}, 1, true, true),
      eval_sample("residual and ReLU, parameters by sample", {2, 2, 2, 5}, 2, true, true),
      eval_sample("16 channels, ReLU", {2, 2, 2, 16}, 1, false, true),
      eval_sample("70 channels", {2, 3, 2, 70}, 1, false, false),
      eval_sample("70 channels, residual and ReLU", {2, 1, 2, 70}, 1, true, true),
      train_sample("images", {3, 2, 2, 5}, Input::first_axis),
      train_sample("vectors", {6, 5}, 1),
      train_sample("70 channels", {2, 2, 3, 70}, Input::first_axis),
  };
}

}  // namespace fastntk::test
