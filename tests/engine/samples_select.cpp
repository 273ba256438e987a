// Ops that choose, and dropout.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/ops/dropout.h"
#include "engine/ops/select.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

double least(const Array& x) { return x.values.empty() ? 1 : *std::min_element(x.values.begin(), x.values.end()); }

Sample extremum_sample(const std::string& op, const std::string& note, const Shape& a, const Shape& b,
                       int64_t samples) {
  const bool largest = op == "maximum";
  return {.op = op,
          .note = note,
          .inputs = {{a}, {b}},
          .function = [=](const Values& v) { return largest ? maximum(v[0], v[1]) : minimum(v[0], v[1]); },
          .reference =
              [=](const Arrays& x) {
                return binary(x[0], x[1],
                              [=](double p, double q) { return largest ? std::max(p, q) : std::min(p, q); });
              },
          .saved = [=](ActiveSet) { return Saved{.extras = {broadcast(a, b, "")}}; },
          .samples = samples,
          .refusals = {{{{2, 3}, {2, 4}}}, {{{2, 3}, {3, 2}}}},
          .kink_distance =
              [](const Arrays& x) {
                return least(binary(x[0], x[1], [](double p, double q) { return std::abs(p - q); }));
              }};
}

Sample where_sample(const std::string& note, const Shape& mask, const Shape& a, const Shape& b, int64_t samples) {
  return {.op = "where",
          .note = note,
          .inputs = {{mask, Draw::labels, false, 2}, {a}, {b}},
          .function = [](const Values& v) { return where(v[0].value, v[1], v[2]); },
          .reference =
              [](const Arrays& x) {
                const Array first = binary(x[0], x[1], [](double m, double v) { return m != 0 ? v : 0; });
                const Array second = binary(x[0], x[2], [](double m, double v) { return m != 0 ? 0 : v; });
                return binary(first, second, std::plus<>());
              },
          .saved = [](ActiveSet) { return Saved{.inputs = 1}; },
          .samples = samples,
          .refusals = {{{{2, 3}, {2, 4}, {2, 3}}}, {{{2, 4}, {2, 3}, {2, 3}}}, {{{2, 3}, {2, 3}, {3, 3}}}}};
}

Sample clamp_sample(const std::string& note, double low, double high) {
  return {.op = "clamp",
          .note = note,
          .inputs = {{{2, 3, 11}}},
          .function = [=](const Values& v) { return clamp(v[0], low, high); },
          .reference = [=](const Arrays& a) { return unary(a[0], [=](double x) { return std::clamp(x, low, high); }); },
          .saved = [](ActiveSet) { return Saved{.inputs = 1}; },
          .samples = 2,
          .refusals = {{{{2, 3}}, [](const Values& v) { return clamp(v[0], 1, 0); }}},
          .kink_distance =
              [=](const Arrays& a) {
                return least(unary(a[0], [=](double x) { return std::min(std::abs(x - low), std::abs(x - high)); }));
              }};
}

// Masks that the reference draws by itself: number i of the tensor, or of the samples.
Sample dropout_sample(const std::string& name, const Shape& shape, double rate, int64_t first) {
  const bool path = name == "drop_path";
  const Random random(7, 3);
  return {.op = name,
          .inputs = {{shape}},
          .function =
              [=](const Values& v) {
                return path ? drop_path(v[0], rate, random, first) : dropout(v[0], rate, random, first);
              },
          .reference =
              [=](const Arrays& a) {
                Array y = a[0];
                const uint64_t sample = static_cast<uint64_t>(shape.elements() / shape[0]);
                for (size_t i = 0; i < y.values.size(); i++) {
                  const uint64_t n = static_cast<uint64_t>(first) + i / sample;
                  const double u = random.uniform_float(path ? n : n * sample + i % sample);
                  y.values[i] *= u < rate ? 0 : 1 / (1 - rate);
                }
                return y;
              },
          .composition = true,
          .refusals = {{{Shape{}}}, {{{2, 3}}, [=](const Values& v) {
                                       return path ? drop_path(v[0], 1, random) : dropout(v[0], 1, random);
                                     }}}};
}

}  // namespace

Samples select_samples() {
  Samples all;
  for (const char* const op : {"maximum", "minimum"}) {
    all.push_back(extremum_sample(op, "equal shapes", {2, 3, 11}, {2, 3, 11}, 2));
    all.push_back(extremum_sample(op, "a parameter", {2, 3, 7}, {1, 1, 7}, 2));
    all.push_back(extremum_sample(op, "both broadcast", {2, 3, 1}, {1, 4}, 0));
    all.push_back(extremum_sample(op, "no elements", {0, 3}, {1, 3}, 0));
  }
  const double infinity = std::numeric_limits<double>::infinity();
  const Samples others = {
      where_sample("equal shapes", {2, 3, 11}, {2, 3, 11}, {2, 3, 11}, 2),
      where_sample("a mask for all samples", {1, 3, 1}, {2, 3, 4}, {2, 1, 4}, 2),
      where_sample("a number on either side", {2, 5}, {1, 1}, {}, 2),
      where_sample("no elements", {1, 3}, {0, 3}, {1, 3}, 0),
      clamp_sample("", -0.8, 0.5),
      clamp_sample("from below only", -0.4, infinity),
      clamp_sample("from above only", -infinity, 0.3),
      {.op = "abs",
       .inputs = {{{2, 5, 19}, Draw::off_zero}},
       .function = [](const Values& v) { return abs(v[0]); },
       .reference = [](const Arrays& a) { return unary(a[0], [](double x) { return std::abs(x); }); },
       .saved = [](ActiveSet) { return Saved{.inputs = 1}; },
       .samples = 2},
      dropout_sample("dropout", {3, 5, 7}, 0.3, 0),
      dropout_sample("dropout", {2, 33}, 0.5, 4),
      dropout_sample("drop_path", {6, 2, 3}, 0.4, 0),
      dropout_sample("drop_path", {5, 4}, 0.5, 3),
  };
  all.insert(all.end(), others.begin(), others.end());
  return all;
}

}  // namespace fastntk::test
