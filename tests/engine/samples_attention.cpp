// Scaled dot-product attention.
#include <cmath>

#include "engine/ops/attention.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

Array turned(const Array& x) {
  std::vector<int> order;
  for (int i = 0; i < x.shape.rank(); i++) order.push_back(i);
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return permuted(x, order);
}

// q [lead…, T, d], k [lead…, S, d], v [lead…, S, e].
Sample attention_sample(const std::string& note, const Shape& lead, int64_t T, int64_t S, int64_t d, int64_t e) {
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  return {.op = "attention",
          .note = note,
          .inputs = {{lead + Shape{T, d}}, {lead + Shape{S, d}}, {lead + Shape{S, e}}},
          .function = [=](const Values& v) { return attention(v[0], v[1], v[2], scale); },
          .reference =
              [=](const Arrays& a) {
                const Array logits = unary(product(a[0], turned(a[1])), [=](double s) { return scale * s; });
                const Array p = binary(logits, log_sum_exp(logits), [](double s, double z) { return std::exp(s - z); });
                return product(p, a[2]);
              },
          // q and k for the probabilities, v for dq and dk.
          .saved = [](ActiveSet active) { return Saved{.inputs = active & 3U ? 7U : 3U}; },
          .samples = lead[0],
          .refusals = {{{lead + Shape{T, d}, lead + Shape{S, d + 1}, lead + Shape{S, e}}},
                       {{lead + Shape{T, d}, lead + Shape{S, d}, lead + Shape{S + 1, e}}},
                       {{lead + Shape{T, d}, Shape{S, d}, lead + Shape{S, e}}},
                       {{lead + Shape{T, d}, lead + Shape{0, d}, lead + Shape{0, e}}}}};
}

}  // namespace

Samples attention_samples() {
  return {
      attention_sample("heads", {2, 3}, 5, 5, 4, 4),
      attention_sample("one query", {2, 2}, 1, 7, 3, 3),
      attention_sample("queries, keys and values of different sizes", {2, 2}, 4, 6, 5, 3),
      attention_sample("no axis of heads", {2}, 3, 4, 5, 5),
      attention_sample("larger than a tile of registers", {2, 1}, 19, 21, 33, 18),
  };
}

}  // namespace fastntk::test
