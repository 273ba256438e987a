// Variance, and extremes and log Σ exp over several axes.
#include <cmath>

#include "engine/ops/softmax.h"
#include "engine/ops/statistics.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

// Calls f with axes as an initializer list.
template <class F>
auto with(const std::vector<int>& axes, F&& f) {
  switch (axes.size()) {
    case 1:
      return f(std::initializer_list<int>{axes[0]});
    case 2:
      return f(std::initializer_list<int>{axes[0], axes[1]});
    default:
      return f(std::initializer_list<int>{axes.at(0), axes.at(1), axes.at(2)});
  }
}

Array variance(const Array& x, const std::vector<int>& axes, int64_t correction) {
  const Array ones(x.shape, 1);
  const Array count = sum_over(ones, axes);
  const Array mean = binary(sum_over(x, axes), count, std::divides<>());
  const Array squares = binary(x, mean, [](double a, double m) { return (a - m) * (a - m); });
  return binary(sum_over(squares, axes), count,
                [=](double s, double n) { return s / (n - static_cast<double>(correction)); });
}

Array largest_over(Array x, const std::vector<int>& axes) {
  for (const int axis : axes) x = max_over(x, axis);
  return x;
}

Array negative(const Array& x) { return unary(x, std::negate<>()); }

Sample var_sample(const std::string& note, const Shape& x, const std::vector<int>& axes, int64_t correction,
                  bool mixes = false) {
  return {
      .op = "var",
      .note = note,
      .inputs = {{x, Draw::normal, true, 0, axes[0] == 0 ? 1 : 0}},
      .function = [=](const Values& v) { return with(axes, [&](auto list) { return var(v[0], list, correction); }); },
      .reference = [=](const Arrays& a) { return variance(a[0], axes, correction); },
      .samples = x[0],
      .mixes_samples = mixes,
      .composition = true,
      .refusals = {{{x}, [=](const Values& v) { return var(v[0], {1}, v[0].extent(1)); }}}};
}

// Of distinct numbers; `repeated` is an axis that is kept.
Sample extreme_sample(const std::string& op, const std::string& note, const Shape& x, const std::vector<int>& axes,
                      int repeated, bool mixes = false) {
  const bool smallest = op == "min";
  return {.op = smallest ? "min" : "max over axes",
          .note = note,
          .inputs = {{x, Draw::distinct, true, 0, repeated}},
          .function =
              [=](const Values& v) {
                if (smallest && axes.size() == 1) return min(v[0], axes[0]);
                return with(axes, [&](auto list) { return smallest ? min(v[0], list) : max(v[0], list); });
              },
          .reference =
              [=](const Arrays& a) {
                return smallest ? negative(largest_over(negative(a[0]), axes)) : largest_over(a[0], axes);
              },
          .samples = x[0],
          .mixes_samples = mixes,
          .composition = true,
          .refusals = {{{x}, [](const Values& v) { return max(v[0], {9}); }},
                       {{{2, 0, 3}},
                        [](const Values& v) {
                          return max(v[0], {1, 2});
                        }},
                       {{{2, 0, 3}}, [](const Values& v) { return min(v[0], 1); }}},
          .called = "max"};
}

Sample logsumexp_sample(const std::string& note, const Shape& x, const std::vector<int>& axes, bool mixes = false) {
  return {.op = "logsumexp over axes",
          .note = note,
          .inputs = {{x}},
          .function = [=](const Values& v) { return with(axes, [&](auto list) { return logsumexp(v[0], list); }); },
          .reference =
              [=](const Arrays& a) {
                return unary(sum_over(unary(a[0], [](double v) { return std::exp(v); }), axes),
                             [](double s) { return std::log(s); });
              },
          .samples = x[0],
          .mixes_samples = mixes,
          .composition = true,
          .refusals = {{{x}, [](const Values& v) { return logsumexp(v[0], {-7}); }}},
          .called = "logsumexp"};
}

}  // namespace

Samples statistics_samples() {
  return {
      var_sample("unbiased, last axis", {2, 3, 5}, {-1}, 1),
      var_sample("biased, over positions", {2, 3, 4, 2}, {1, 2}, 0),
      var_sample("of the samples", {3, 4}, {0}, 1, true),
      var_sample("one element, biased", {2, 1, 3}, {1}, 0),
      extreme_sample("min", "last axis", {2, 3, 7}, {-1}, 0),
      extreme_sample("min", "middle axis", {2, 5, 3}, {1}, 0),
      extreme_sample("min", "two axes", {2, 3, 4, 2}, {1, 2}, 0),
      extreme_sample("min", "of the samples", {3, 4}, {0}, 1, true),
      extreme_sample("max", "the last two axes", {2, 3, 4}, {1, 2}, 0),
      extreme_sample("max", "two axes apart", {2, 3, 2, 4}, {1, -1}, 0),
      extreme_sample("max", "two axes before the last", {2, 3, 4, 2}, {-3, -2}, 0),
      extreme_sample("max", "with the samples", {3, 2, 4}, {0, 2}, 1, true),
      logsumexp_sample("a middle axis", {2, 5, 3}, {1}),
      logsumexp_sample("two axes apart", {2, 3, 2, 4}, {1, 3}),
      logsumexp_sample("all axes", {2, 3, 4}, {0, 1, 2}, true),
  };
}

}  // namespace fastntk::test
