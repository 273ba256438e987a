// Softmax, maxima, and picking by index.
#include <cmath>

#include "engine/ops/elementwise.h"
#include "engine/ops/gather.h"
#include "engine/ops/softmax.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

Array log_softmax_of(const Array& x) { return binary(x, log_sum_exp(x), std::minus<>()); }

// Ops along the last axis, of rows of 7, and of one long row at a time.
Samples along_last(const std::string& op, Variable (*function)(const Variable&), Array (*reference)(const Array&),
                   const Saved& saved) {
  Sample s{.op = op,
           .note = "rows",
           .inputs = {{{2, 3, 7}}},
           .function = [=](const Values& v) { return function(v[0]); },
           .reference = [=](const Arrays& a) { return reference(a[0]); },
           .saved = [=](ActiveSet) { return saved; },
           .samples = 2,
           .refusals = {{{Shape{}}}, {{{2, 0}}}}};
  Sample large = s;
  large.note = "numbers whose exponential overflows";
  large.inputs = {{{2, 33}}};
  large.function = [=](const Values& v) { return function(shift(v[0], 800)); };
  large.reference = [=](const Arrays& a) {
    return unary(reference(a[0]), [=](double y) { return op == "logsumexp" ? y + 800 : y; });
  };
  large.tolerance32 = 1e-3;  // float32 leaves 800 + x four digits behind the point
  Sample vector = s;
  vector.note = "a vector, whose axis is not the samples'";
  vector.inputs = {{{5}}};
  vector.samples = 5;
  vector.mixes_samples = true;
  return {s, large, vector};
}

Sample max_sample(const std::string& note, const Shape& shape, int axis, int repeated) {
  const int from_back = axis < 0 ? axis : axis - shape.rank();
  return {.op = "max",
          .note = note,
          .inputs = {{shape, Draw::distinct, true, 0, repeated}},
          .function = [=](const Values& v) { return max(v[0], axis); },
          .reference = [=](const Arrays& a) { return max_over(a[0], axis); },
          .saved =
              [=](ActiveSet) {
                Shape index = shape;
                index[axis] = 1;
                return Saved{.extras = {index}};
              },
          .samples = shape[0],
          .mixes_samples = from_back == -shape.rank(),
          .refusals = {{{Shape::filled(-from_back, 0)}}, {{Shape{}}}}};
}

// x [l…, E, r…] picked by index [l…, I, r…].
Sample gather_sample(const std::string& note, const Shape& x, int axis, const Shape& index, int64_t samples,
                     bool mixes = false) {
  return {.op = "gather",
          .note = note,
          .inputs = {{x}, {index, Draw::labels, false, x[axis]}},
          .function = [=](const Values& v) { return gather(v[0], axis, v[1].value); },
          .reference =
              [=](const Arrays& a) {
                Shape out = a[0].shape;
                out[axis] = a[1].shape[axis];
                return make(out, [&](Shape i) {
                  i[axis] = static_cast<int64_t>(a[1](i));
                  return a[0](i);
                });
              },
          .saved = [](ActiveSet) { return Saved{.inputs = 2}; },
          .samples = samples,
          .mixes_samples = mixes,
          .takes_integers = true,
          .refusals = {{{x, Shape{7, 7, 7}}}}};
}

Sample scatter_sample(const std::string& note, const Shape& x, int axis, int64_t extent, const Shape& index,
                      int64_t samples, bool mixes = false) {
  return {.op = "scatter_add",
          .note = note,
          .inputs = {{x}, {index, Draw::labels, false, extent}},
          .function = [=](const Values& v) { return scatter_add(v[0], axis, v[1].value, extent); },
          .reference =
              [=](const Arrays& a) {
                Shape shape = a[0].shape;
                shape[axis] = extent;
                Array out(shape);
                for_each_index(a[0].shape, [&](const Shape& from) {
                  Shape to = from;
                  to[axis] = static_cast<int64_t>(a[1](from));
                  out(to) += a[0](from);
                });
                return out;
              },
          .saved = [](ActiveSet) { return Saved{.inputs = 2}; },
          .samples = samples,
          .mixes_samples = mixes,
          .refusals = {{{x, Shape{7, 7, 7}}}}};
}

}  // namespace

Samples softmax_samples() {
  Samples all;
  const auto enter = [&](const Samples& some) { all.insert(all.end(), some.begin(), some.end()); };
  enter(along_last("softmax", softmax,
                   [](const Array& x) { return unary(log_softmax_of(x), [](double v) { return std::exp(v); }); },
                   {.output = true}));
  enter(along_last("log_softmax", log_softmax, log_softmax_of, {.output = true}));
  enter(along_last("logsumexp", logsumexp, log_sum_exp, {.inputs = 1, .output = true}));
  return all;
}

Samples index_samples() {
  return {
      max_sample("last axis", {2, 3, 7}, -1, 0),
      max_sample("middle axis", {2, 5, 4}, 1, 0),
      max_sample("first axis", {3, 4}, 0, 1),
      max_sample("a long axis", {2, 70, 3}, -2, 0),
      gather_sample("last axis", {2, 3, 7}, -1, {2, 3, 4}, 2),
      gather_sample("middle axis", {2, 5, 3}, 1, {2, 1, 3}, 2),
      gather_sample("an index for all samples", {2, 5, 3}, -2, {4, 3}, 2),
      gather_sample("an index for all channels", {2, 5, 3}, -2, {2, 4, 1}, 2),
      gather_sample("of the samples", {4, 3}, 0, {2, 3}, 0, true),
      scatter_sample("last axis", {2, 3, 4}, -1, 7, {2, 3, 4}, 2),
      scatter_sample("middle axis", {2, 4, 3}, 1, 5, {2, 4, 3}, 2),
      scatter_sample("an index for all samples", {2, 4, 3}, 1, 5, {4, 3}, 2),
      scatter_sample("an index for all channels", {2, 4, 3}, -2, 5, {2, 4, 1}, 2),
      scatter_sample("of the samples", {2, 3}, 0, 4, {2, 3}, 0, true),
  };
}

}  // namespace fastntk::test
