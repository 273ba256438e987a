// Matrix products.
#include "engine/ops/linear.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

Saved crossed(ActiveSet active) { return {.inputs = (active & 1U) << 1 | (active & 2U) >> 1}; }

Sample matmul_sample(const std::string& note, const Shape& a, const Shape& b, int64_t samples, bool mixes = false) {
  return {.op = "matmul",
          .note = note,
          .inputs = {{a}, {b}},
          .function = [](const Values& v) { return matmul(v[0], v[1]); },
          .reference = [](const Arrays& x) { return product(x[0], x[1]); },
          .saved = crossed,
          .samples = samples,
          .mixes_samples = mixes,
          .refusals = {{{{2, 3, 4}, {2, 5, 6}}}, {{{2, 3, 4}, {3, 4, 5}}}, {{{4}, {4, 5}}}}};
}

Sample linear_sample(const std::string& note, const Shape& x, const Shape& w) {
  return {.op = "linear",
          .note = note,
          .inputs = {{x}, {w}},
          .function = [](const Values& v) { return linear(v[0], v[1]); },
          .reference =
              [](const Arrays& a) {
                return product(a[0], permuted(a[1], {0, 2, 1}));
              },
          .saved = crossed,
          .samples = x[0],
          .refusals = {{{{2, 3, 4}, {1, 6, 5}}}, {{{2, 3, 4}, {3, 6, 4}}}, {{{3, 4}, {6, 4}}}}};
}

}  // namespace

Samples linear_samples() {
  return {
      matmul_sample("one matrix each", {3, 4}, {4, 5}, 3, true),
      matmul_sample("a batch", {2, 3, 4}, {2, 4, 5}, 2),
      matmul_sample("one right side for the batch", {2, 3, 4}, {1, 4, 5}, 2),
      matmul_sample("one left side for the batch", {1, 3, 4}, {2, 4, 5}, 2),
      matmul_sample("two batch axes that broadcast", {2, 1, 3, 4}, {1, 5, 4, 2}, 2),
      matmul_sample("ranks that differ", {2, 3, 5, 4}, {3, 4, 2}, 0),
      matmul_sample("a matrix for a batch", {2, 3, 4}, {4, 2}, 0),
      matmul_sample("larger than a tile of registers", {2, 19, 33}, {2, 33, 35}, 2),
      matmul_sample("one row", {2, 1, 37}, {1, 37, 18}, 2),
      matmul_sample("one column, one term", {2, 5, 1}, {2, 1, 1}, 2),
      matmul_sample("a sum over nothing", {2, 3, 0}, {2, 0, 4}, 2),
      linear_sample("weights of all samples", {2, 3, 7}, {1, 5, 7}),
      linear_sample("weights by sample", {2, 3, 7}, {2, 5, 7}),
      linear_sample("one token", {3, 1, 40}, {1, 10, 40}),
      linear_sample("larger than a tile of registers", {2, 17, 33}, {1, 37, 33}),
  };
}

}  // namespace fastntk::test
