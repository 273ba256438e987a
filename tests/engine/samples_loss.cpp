// Losses by row.
#include <cmath>

#include "engine/ops/loss.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

Array log_softmax_of(const Array& x) { return binary(x, log_sum_exp(x), std::minus<>()); }

// Σ over the last axis, which is dropped.
Array row_sums(const Array& x) {
  Array y = sum_over(x, {-1});
  y.shape = x.shape.leading(x.shape.rank() - 1);
  return y;
}

Sample cross_entropy_sample(const std::string& note, int64_t classes, double smoothing) {
  return {.op = "cross_entropy",
          .note = note,
          .inputs = {{{3, classes}}, {{3}, Draw::labels, false, classes}},
          .function = [=](const Values& v) { return cross_entropy(v[0], v[1].value, smoothing); },
          .reference =
              [=](const Arrays& a) {
                const Array log_p = log_softmax_of(a[0]);
                return make({a[0].shape[0]}, [&](const Shape& n) {
                  double loss = 0;
                  for (int64_t c = 0; c < classes; c++) {
                    const double t = (1 - smoothing) * (a[1](n) == static_cast<double>(c)) +
                                     smoothing / static_cast<double>(classes);
                    loss -= t * log_p({n[0], c});
                  }
                  return loss;
                });
              },
          .saved = [](ActiveSet) { return Saved{.inputs = 3}; },
          .samples = 3,
          .refusals = {{{{3, 4}, {4}}}, {{{3, 4}, {3, 1}}}}};
}

// Inputs x, targets and perhaps weights of the columns; the reference gets the last two multiplied.
Sample weighted_sample(const std::string& op, const std::string& note, bool weights,
                       const std::function<Variable(const Variable&, const Tensor&, const Tensor&)>& function,
                       const std::function<Array(const Array& x, const Array& t, const Array& wt)>& reference,
                       const Saved& saved) {
  Sample s{.op = op,
           .note = note,
           .inputs = {{{3, 5}}, {{3, 5}, Draw::positive, false}},
           .function = [=](const Values& v) { return function(v[0], v[1].value, weights ? v[2].value : Tensor{}); },
           .reference =
               [=](const Arrays& a) {
                 return reference(a[0], a[1], weights ? binary(a[1], a[2], std::multiplies<>()) : a[1]);
               },
           .saved = [=](ActiveSet) { return saved; },
           .samples = 3};
  if (weights) {
    s.inputs.push_back({{5}, Draw::positive, false});
    s.refusals = {{{{3, 5}, {3, 5}, {3}}}, {{{3, 5}, {3, 4}, {5}}}};
  } else {
    s.refusals = {{{{3, 5}, {3, 4}}}, {{{3, 5}, {5}}}, {{Shape{}, Shape{}}}};
  }
  return s;
}

Sample soft_sample(const std::string& note, bool weights) {
  return weighted_sample("cross_entropy", note, weights, cross_entropy_soft,
                         [](const Array& x, const Array&, const Array& wt) {
                           return row_sums(binary(wt, log_softmax_of(x), [](double q, double l) { return -q * l; }));
                         },
                         {.inputs = 3});
}

Sample binary_sample(const std::string& note, bool weights) {
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  return weighted_sample("binary_cross_entropy", note, weights, binary_cross_entropy,
                         [=](const Array& x, const Array& t, const Array& wt) {
                           const Array positive = binary(wt, x, [=](double a, double v) { return a * softplus(-v); });
                           const Array negative =
                               binary(t, x, [=](double b, double v) { return (1 - b) * softplus(v); });
                           return row_sums(binary(positive, negative, std::plus<>()));
                         },
                         {.inputs = 7});
}

Sample kl_sample(const std::string& note, bool log_targets) {
  return weighted_sample(
      "kl_divergence", note, false,
      [=](const Variable& x, const Tensor& t, const Tensor&) { return kl_divergence(x, t, log_targets); },
      [=](const Array& x, const Array& t, const Array&) {
        return row_sums(binary(
            t, x, [=](double p, double v) { return log_targets ? std::exp(p) * (p - v) : p * (std::log(p) - v); }));
      },
      {.inputs = 2});
}

}  // namespace

Samples loss_samples() {
  return {
      cross_entropy_sample("", 5, 0),
      cross_entropy_sample("with label smoothing", 10, 0.1),
      {.op = "squared_error",
       .inputs = {{{3, 5}}, {{3, 5}, Draw::normal, false}},
       .function = [](const Values& v) { return squared_error(v[0], v[1].value); },
       .reference =
           [](const Arrays& a) {
             const Array squares = binary(a[0], a[1], [](double x, double t) { return (x - t) * (x - t) / 2; });
             return row_sums(squares);
           },
       .saved = [](ActiveSet) { return Saved{.inputs = 3}; },
       .samples = 3,
       .refusals = {{{{3, 5}, {3, 4}}}, {{{3, 5}, {5}}}}},
      soft_sample("soft labels", false),
      soft_sample("soft labels and class weights", true),
      binary_sample("", false),
      binary_sample("weights of the positive class", true),
      kl_sample("", false),
      kl_sample("log-targets", true),
  };
}

}  // namespace fastntk::test
