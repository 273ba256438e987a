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

// x [lead…, T, 3 heads d].
Sample self_attention_sample(const std::string& note, const Shape& lead, int64_t T, int64_t heads, int64_t d) {
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  const Shape shape = lead + Shape{T, 3 * heads * d};
  return {.op = "self_attention",
          .note = note,
          .inputs = {{shape}},
          .function = [=](const Values& v) { return self_attention(v[0], heads, scale); },
          .reference =
              [=](const Arrays& a) {
                const int rank = lead.rank();
                // [lead…, T, 3, heads, d] → [3, lead…, heads, T, d]
                std::vector<int> order = {rank + 1};
                for (int i = 0; i < rank; i++) order.push_back(i);
                for (const int i : {rank + 2, rank, rank + 3}) order.push_back(i);
                Array apart = a[0];
                apart.shape = lead + Shape{T, 3, heads, d};
                const Array parts = permuted(apart, order);
                const size_t count = parts.values.size() / 3;
                const auto part = [&](size_t i) {
                  Array p = parts;
                  p.shape = lead + Shape{heads, T, d};
                  p.values.assign(parts.values.begin() + static_cast<std::ptrdiff_t>(i * count),
                                  parts.values.begin() + static_cast<std::ptrdiff_t>((i + 1) * count));
                  return p;
                };
                const Array logits = unary(product(part(0), turned(part(1))), [=](double s) { return scale * s; });
                const Array p = binary(logits, log_sum_exp(logits), [](double s, double z) { return std::exp(s - z); });
                std::vector<int> back;
                for (int i = 0; i < rank; i++) back.push_back(i);
                for (const int i : {rank + 1, rank, rank + 2}) back.push_back(i);
                Array y = permuted(product(p, part(2)), back);
                y.shape = lead + Shape{T, heads * d};
                return y;
              },
          .saved = [](ActiveSet) { return Saved{.inputs = 1U}; },
          .samples = lead[0],
          .refusals = {{{lead + Shape{T, 3 * heads * d + 1}}},
                       {{lead + Shape{0, 3 * heads * d}}},
                       {{Shape{T, 3 * heads * d}}}}};
}

}  // namespace

Samples attention_samples() {
  return {
      attention_sample("heads", {2, 3}, 5, 5, 4, 4),
      attention_sample("one query", {2, 2}, 1, 7, 3, 3),
      attention_sample("queries, keys and values of different sizes", {2, 2}, 4, 6, 5, 3),
      attention_sample("no axis of heads", {2}, 3, 4, 5, 5),
      attention_sample("larger than a tile of registers", {2, 1}, 19, 21, 33, 18),
      self_attention_sample("two heads", {2}, 5, 2, 3),
      self_attention_sample("two leading axes", {2, 2}, 3, 1, 4),
      self_attention_sample("larger than a tile of registers", {2}, 19, 2, 33),
  };
}

}  // namespace fastntk::test
