// Sums over axes, and the shape ops.
#include "engine/ops/reduce.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

Sample sum_sample(const std::string& note, const Shape& shape, std::initializer_list<int> axes, bool mixes) {
  const std::vector<int> kept(axes);
  return {.op = "sum",
          .note = note,
          .inputs = {{shape}},
          .function =
              [kept](const Values& v) {
                return kept.size() == 1   ? sum(v[0], {kept[0]})
                       : kept.size() == 2 ? sum(v[0], {kept[0], kept[1]})
                                          : sum(v[0], {kept[0], kept[1], kept[2]});
              },
          .reference = [kept](const Arrays& a) { return sum_over(a[0], kept); },
          .samples = 2,
          .mixes_samples = mixes,
          .refusals = {{{Shape{}}}}};
}

// A shape op: the same function of Variables and of Arrays.
template <class Function, class Reference>
Sample moved(const std::string& op, const std::string& note, const Shape& shape, Function function, Reference reference,
             bool mixes = false) {
  return {.op = op,
          .note = note,
          .inputs = {{shape}},
          .function = [=](const Values& v) { return function(v[0]); },
          .reference = [=](const Arrays& a) { return reference(a[0]); },
          .samples = 2,
          .mixes_samples = mixes,
          .takes_integers = true};
}

Array under(Array x, const Shape& shape) {
  x.shape = shape;
  return x;
}

}  // namespace

Samples reduce_samples() {
  Samples all = {
      sum_sample("last axis", {2, 3, 19}, {-1}, false),
      sum_sample("middle axis", {2, 3, 19}, {1}, false),
      sum_sample("two axes", {2, 3, 4, 5}, {1, -1}, false),
      sum_sample("two inner axes", {2, 4, 5, 3}, {-3, -2}, false),
      sum_sample("first axis", {2, 3, 4}, {0}, true),
      sum_sample("all axes", {2, 3, 4}, {0, 1, 2}, true),
      sum_sample("an axis of extent 1", {2, 1, 4}, {1}, false),
      sum_sample("an axis without elements", {2, 0, 4}, {1}, false),
      sum_sample("more outputs than a block", {2, 3, 150}, {1}, false),
  };
  Sample mean_of_axes = sum_sample("mean over two axes", {2, 3, 4, 5}, {1, 2}, false);
  mean_of_axes.function = [](const Values& v) { return mean(v[0], {1, 2}); };
  mean_of_axes.reference = [](const Arrays& a) {
    return unary(sum_over(a[0], {1, 2}), [](double s) { return s / 12; });
  };
  mean_of_axes.called = "mean";
  all.push_back(mean_of_axes);
  Sample total = sum_sample("to a scalar", {2, 3, 4}, {0, 1, 2}, true);
  total.function = [](const Values& v) { return sum(v[0]); };
  total.reference = [](const Arrays& a) { return under(sum_over(a[0], {0, 1, 2}), {}); };
  total.refusals.clear();
  all.push_back(total);
  Sample average = total;
  average.note = "mean to a scalar";
  average.function = [](const Values& v) { return mean(v[0]); };
  average.reference = [](const Arrays& a) {
    return under(unary(sum_over(a[0], {0, 1, 2}), [](double s) { return s / 24; }), {});
  };
  all.push_back(average);
  return all;
}

Samples shape_samples() {
  const auto repeat = [](const Shape& to) {
    return [to](const Array& x) { return binary(x, Array(to), std::plus<>()); };
  };
  Samples all = {
      moved(
          "expand", "an inner axis", {2, 3, 1},
          [](const Variable& x) {
            return expand(x, {x.extent(0), 3, 5});
          },
          [](const Array& x) {
            return binary(x, Array({x.shape[0], 3, 5}), std::plus<>());
          }),
      moved(
          "expand", "the first axis", {1, 3},
          [](const Variable& x) {
            return expand(x, {2, 3});
          },
          repeat({2, 3}), true),
      moved(
          "expand", "new leading axes", {2, 1},
          [](const Variable& x) {
            return expand(x, {4, 2, 3});
          },
          repeat({4, 2, 3}), true),
      moved(
          "reshape", "split and joined behind the samples", {2, 6, 4},
          [](const Variable& x) {
            return reshape(x, {x.extent(0), 3, 8});
          },
          [](const Array& x) {
            return under(x, {x.shape[0], 3, 8});
          }),
      moved(
          "reshape", "flattened to rows", {2, 3, 5},
          [](const Variable& x) {
            return reshape(x, {x.extent(0), 15});
          },
          [](const Array& x) {
            return under(x, {x.shape[0], 15});
          }),
      moved(
          "reshape", "with axes of extent 1", {2, 3, 4},
          [](const Variable& x) {
            return reshape(x, {x.extent(0), 1, 3, 1, 4});
          },
          [](const Array& x) {
            return under(x, {x.shape[0], 1, 3, 1, 4});
          }),
      moved(
          "reshape", "through the sample axis", {2, 3, 4},
          [](const Variable& x) {
            return reshape(x, {3, 8});
          },
          [](const Array& x) {
            return under(x, {3, 8});
          },
          true),
      moved(
          "permute", "behind the samples", {2, 3, 4, 5},
          [](const Variable& x) {
            return permute(x, {0, 3, 1, 2});
          },
          [](const Array& x) {
            return permuted(x, {0, 3, 1, 2});
          }),
      moved(
          "permute", "of the samples", {2, 3, 4},
          [](const Variable& x) {
            return permute(x, {2, 0, 1});
          },
          [](const Array& x) {
            return permuted(x, {2, 0, 1});
          },
          true),
      moved(
          "permute", "transpose of the last axes", {2, 3, 4}, [](const Variable& x) { return transpose(x, -1, -2); },
          [](const Array& x) {
            return permuted(x, {0, 2, 1});
          }),
      moved(
          "permute", "transpose with the samples", {2, 3, 4}, [](const Variable& x) { return transpose(x, 0, 1); },
          [](const Array& x) {
            return permuted(x, {1, 0, 2});
          },
          true),
      moved(
          "slice", "with a step", {2, 8, 3}, [](const Variable& x) { return slice(x, 1, 1, 7, 2); },
          [](const Array& x) { return sliced(x, 1, 1, 7, 2); }),
      moved(
          "slice", "a step that does not divide", {2, 3, 8}, [](const Variable& x) { return slice(x, -1, 2, 8, 4); },
          [](const Array& x) { return sliced(x, -1, 2, 8, 4); }),
      moved(
          "slice", "to nothing", {2, 3, 4}, [](const Variable& x) { return slice(x, 1, 2, 2); },
          [](const Array& x) { return sliced(x, 1, 2, 2, 1); }),
      moved(
          "slice", "of the samples", {2, 3}, [](const Variable& x) { return slice(x, 0, 1, 2); },
          [](const Array& x) { return sliced(x, 0, 1, 2, 1); }, true),
      moved(
          "spread", "pad", {2, 3, 4}, [](const Variable& x) { return pad(x, 1, 2, 1); },
          [](const Array& x) { return spread(x, 1, 6, 2, 1); }),
      moved(
          "spread", "pad on one side", {2, 3, 4}, [](const Variable& x) { return pad(x, -1, 0, 3); },
          [](const Array& x) { return spread(x, -1, 7, 0, 1); }),
      moved(
          "spread", "pad of the samples", {2, 3}, [](const Variable& x) { return pad(x, 0, 1, 0); },
          [](const Array& x) { return spread(x, 0, 3, 1, 1); }, true),
  };
  for (Sample& s : all) {
    if (s.op == "expand") s.refusals = {{{{2, 2, 2}}, [](const Values& v) { return expand(v[0], {2, 3, 5}); }}};
    if (s.op == "reshape") s.refusals = {{{{2, 7}}, [](const Values& v) { return reshape(v[0], {2, 3, 8}); }}};
    if (s.op == "permute") s.refusals = {{{{2, 3}}, [](const Values& v) { return permute(v[0], {2, 0, 1}); }}};
    if (s.op == "slice") s.refusals = {{{{2, 3}}, [](const Values& v) { return slice(v[0], 1, 1, 4); }}};
    if (s.op == "spread") {
      s.refusals = {{{{2, 3}}, [](const Values& v) { return pad(v[0], 1, -1, 0); }}};
      s.called = "pad";
    }
  }

  const auto joined = [](int axis) { return [axis](const Values& v) { return concat(v, axis); }; };
  const auto joined_arrays = [](int axis) { return [axis](const Arrays& a) { return concatenated(a, axis); }; };
  all.push_back({.op = "concat",
                 .note = "three along the last axis",
                 .inputs = {{{2, 3, 2}}, {{2, 3, 1}}, {{2, 3, 4}}},
                 .function = joined(-1),
                 .reference = joined_arrays(-1),
                 .samples = 2,
                 .takes_integers = true,
                 .refusals = {{{{2, 3, 2}, {2, 4, 1}, {2, 3, 4}}}, {{{2, 3, 2}, {3, 1}, {2, 3, 4}}}}});
  all.push_back({.op = "concat",
                 .note = "two along a middle axis",
                 .inputs = {{{2, 1, 5}}, {{2, 3, 5}}},
                 .function = joined(1),
                 .reference = joined_arrays(1),
                 .samples = 2,
                 .takes_integers = true,
                 .refusals = {{{{2, 3, 2}, {2, 3, 3}}}}});
  all.push_back({.op = "concat",
                 .note = "of samples",
                 .inputs = {{{2, 3}}, {{1, 3}}},
                 .function = joined(0),
                 .reference = joined_arrays(0),
                 .samples = 2,
                 .mixes_samples = true,
                 .takes_integers = true,
                 .refusals = {{{{2, 3}, {2, 2}}}}});
  return all;
}

}  // namespace fastntk::test
