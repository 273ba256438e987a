// Rows by id, lists of indices and the rearrangements made of them, running sums.
#include <vector>

#include "engine/ops/cumsum.h"
#include "engine/ops/indexing.h"
#include "engine/ops/reduce.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

Sample embedding_sample(const std::string& note, const Shape& table, const Shape& ids) {
  return {.op = "embedding",
          .note = note,
          .inputs = {{table}, {ids, Draw::labels, false, table[1]}},
          .function = [](const Values& v) { return embedding(v[0], v[1].value); },
          .reference =
              [](const Arrays& a) {
                return make(a[1].shape + Shape{a[0].shape[-1]}, [&](const Shape& i) {
                  const auto row = static_cast<int64_t>(a[1](i.leading(i.rank() - 1)));
                  return a[0]({i[0], row, i[-1]});
                });
              },
          .saved = [](ActiveSet) { return Saved{.inputs = 2}; },
          .samples = table[0] == 1 && ids[0] != 1 ? 0 : ids[0],
          .takes_integers = true,
          .refusals = {{{{3, 4}, ids}}, {{{ids[0] + 1, 4, 3}, ids}}, {{table, Shape{}}}},
          .helpers = {"reshape"}};
}

Array under(Array x, const Shape& shape) {
  x.shape = shape;
  return x;
}

// Where position i of the result comes from along an axis.
using Source = std::function<int64_t(int64_t)>;

Array picked(const Array& x, int axis, int64_t extent, const Source& source) {
  Shape shape = x.shape;
  shape[axis] = extent;
  return make(shape, [&](Shape at) {
    at[axis] = source(at[axis]);
    return x(at);
  });
}

Sample index_select_sample(const std::string& note, const Shape& x, int axis, int64_t count, bool mixes = false) {
  return {.op = "index_select",
          .note = note,
          .inputs = {{x}, {{count}, Draw::labels, false, x[axis]}},
          .function = [=](const Values& v) { return index_select(v[0], axis, v[1].value); },
          .reference =
              [=](const Arrays& a) {
                return picked(a[0], axis, count, [&](int64_t i) { return static_cast<int64_t>(a[1]({i})); });
              },
          .samples = mixes ? 0 : x[0],
          .mixes_samples = mixes,
          .takes_integers = true,
          .composition = true,
          .refusals = {{{x, {2, 2}}}, {{Shape{}, {2}}}}};
}

Sample moved(const std::string& op, const std::string& note, const Shape& x,
             const std::function<Variable(const Variable&)>& function,
             const std::function<Array(const Array&)>& reference, bool mixes = false) {
  return {.op = op,
          .note = note,
          .inputs = {{x}},
          .function = [=](const Values& v) { return function(v[0]); },
          .reference = [=](const Arrays& a) { return reference(a[0]); },
          .samples = x[0],
          .mixes_samples = mixes,
          .takes_integers = true,
          .composition = true};
}

Sample stack_sample(const std::string& note, const Shape& x, int axis, bool mixes = false) {
  const auto opened = [=](const Array& a) {
    const int at = axis < 0 ? axis + a.shape.rank() + 1 : axis;
    return under(a, a.shape.leading(at) + Shape{1} + a.shape.slice(at, a.shape.rank()));
  };
  return {.op = "stack",
          .note = note,
          .inputs = {{x}, {x}},
          .function =
              [=](const Values& v) {
                return stack({v[0], v[1]}, axis);
              },
          .reference =
              [=](const Arrays& a) {
                return concatenated({opened(a[0]), opened(a[1])}, axis);
              },
          .samples = x[0],
          .mixes_samples = mixes,
          .takes_integers = true,
          .composition = true,
          .refusals = {{{x, x + Shape{1}}}, {{{3, 2}, {2, 3}}}}};
}

Sample cumsum_sample(const std::string& note, const Shape& x, int axis, bool reverse, bool mixes = false) {
  return {.op = "cumsum",
          .note = note,
          .inputs = {{x}},
          .function = [=](const Values& v) { return cumsum(v[0], axis, reverse); },
          .reference =
              [=](const Arrays& a) {
                return make(a[0].shape, [&](Shape at) {
                  double sum = 0;
                  const int64_t i = at[axis];
                  for (int64_t j = reverse ? i : 0; reverse ? j < a[0].shape[axis] : j <= i; j++) {
                    at[axis] = j;
                    sum += a[0](at);
                  }
                  return sum;
                });
              },
          .samples = x[0],
          .mixes_samples = mixes,
          .refusals = {{{Shape{}}}}};
}

}  // namespace

Samples rearrangement_samples() {
  Samples all = {
      embedding_sample("one table", {1, 6, 4}, {2, 3}),
      embedding_sample("a table for each sample", {2, 5, 3}, {2, 4}),
      embedding_sample("one token", {2, 5, 3}, {2}),
      embedding_sample("ids with two axes", {2, 5, 3}, {2, 2, 3}),
      embedding_sample("one sample", {1, 5, 7}, {1, 4}),
      embedding_sample("more rows than a block of lines", {1, 4, 70}, {2, 3}),
      index_select_sample("middle axis", {2, 5, 3}, 1, 4),
      index_select_sample("last axis", {2, 3, 6}, -1, 4),
      index_select_sample("of the samples", {4, 3}, 0, 3, true),
      moved(
          "flip", "two axes", {2, 3, 5},
          [](const Variable& x) {
            return flip(x, {1, -1});
          },
          [](const Array& x) {
            return picked(picked(x, 1, 3, [](int64_t i) { return 2 - i; }), 2, 5, [](int64_t i) { return 4 - i; });
          }),
      moved(
          "flip", "of the samples", {2, 3}, [](const Variable& x) { return flip(x, {0}); },
          [](const Array& x) { return picked(x, 0, 2, [](int64_t i) { return 1 - i; }); }, true),
      moved(
          "roll", "forwards", {2, 5, 3}, [](const Variable& x) { return roll(x, 2, 1); },
          [](const Array& x) { return picked(x, 1, 5, [](int64_t i) { return (i + 3) % 5; }); }),
      moved(
          "roll", "backwards, more than once round", {2, 3, 4}, [](const Variable& x) { return roll(x, -5, -1); },
          [](const Array& x) { return picked(x, -1, 4, [](int64_t i) { return (i + 1) % 4; }); }),
      moved(
          "split", "two of three pieces, in another order", {2, 6, 3},
          [](const Variable& x) {
            const std::vector<Variable> pieces = split(x, {1, 3, 2}, 1);
            return concat({pieces.at(2), pieces.at(0)}, 1);
          },
          [](const Array& x) { return picked(x, 1, 3, [](int64_t i) { return (i + 4) % 6; }); }),
      moved(
          "split", "into equal pieces and a rest", {2, 3, 7},
          [](const Variable& x) {
            const std::vector<Variable> pieces = split(x, 3, -1);
            return concat({pieces.at(2), pieces.at(1), pieces.at(0)}, -1);
          },
          [](const Array& x) {
            return picked(x, -1, 7, [](int64_t i) { return std::vector<int64_t>{6, 3, 4, 5, 0, 1, 2}[i]; });
          }),
      stack_sample("a middle axis", {2, 3}, 1),
      stack_sample("a last axis", {2, 3}, -1),
      stack_sample("a first axis", {2, 3}, 0, true),
      moved(
          "squeeze", "a middle axis", {2, 1, 3}, [](const Variable& x) { return squeeze(x, -2); },
          [](const Array& x) {
            return under(x, {x.shape[0], 3});
          }),
      moved(
          "unsqueeze", "a middle axis", {2, 3}, [](const Variable& x) { return unsqueeze(x, 1); },
          [](const Array& x) {
            return under(x, {x.shape[0], 1, 3});
          }),
      moved(
          "unsqueeze", "a last axis", {2, 3}, [](const Variable& x) { return unsqueeze(x, -1); },
          [](const Array& x) {
            return under(x, {x.shape[0], 3, 1});
          }),
      cumsum_sample("last axis", {2, 3, 7}, -1, false),
      cumsum_sample("middle axis", {2, 5, 3}, 1, false),
      cumsum_sample("from the end", {2, 5, 3}, 1, true),
      cumsum_sample("from the end, last axis", {2, 6}, -1, true),
      cumsum_sample("more lines than a block", {2, 4, 70}, 1, false),
      cumsum_sample("of the samples", {4, 3}, 0, false, true),
      cumsum_sample("an axis of extent 1", {2, 1, 3}, 1, false),
  };
  for (Sample& s : all) {
    const auto refuse = [&](const Shape& shape, const std::function<Variable(const Variable&)>& function) {
      s.refusals.push_back({{shape}, [=](const Values& v) { return function(v[0]); }});
    };
    if (s.op == "flip") refuse({2, 3}, [](const Variable& x) { return flip(x, {2}); });
    if (s.op == "roll") refuse({2, 3}, [](const Variable& x) { return roll(x, 1, -3); });
    if (s.op == "split") {
      refuse({2, 7}, [](const Variable& x) { return split(x, {3, 3}, 1).at(0); });
      refuse({2, 7}, [](const Variable& x) { return split(x, 0, 1).at(0); });
    }
    if (s.op == "squeeze") refuse({2, 3}, [](const Variable& x) { return squeeze(x, 1); });
    if (s.op == "unsqueeze") refuse({2, 3}, [](const Variable& x) { return unsqueeze(x, 3); });
  }
  return all;
}

}  // namespace fastntk::test
