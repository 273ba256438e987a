#include "engine/ops/attention.h"

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"

namespace fastntk {
namespace {

enum Input : int { input_q, input_k, input_v };

Variable turned(const Variable& x) { return transpose(x, -2, -1); }
// Σ p ⊙ t over the keys.
Variable dot(const Variable& p, const Variable& t) { return sum(p * t, {-1}); }

// y = P v, P = softmax(S), S = α q kᵀ.
//   dS = α (dq kᵀ + q dkᵀ),  dP = P ⊙ (dS − ⟨P, dS⟩),  dy = dP v + P dv
// transposed: dv = Pᵀ c;  g = P ⊙ (c vᵀ − ⟨P, c vᵀ⟩);  dq = α g k;  dk = α gᵀ q.
struct Attention final : Op {
  static inline const OpInfo& info = register_op({"attention", "y = P v, P = softmax(α q kᵀ)",
                                                  "dy = dP v + P dv, dP = P ⊙ (dS − ⟨P, dS⟩), dS = α (dq kᵀ + q dkᵀ)"});
  explicit Attention(double scale) : Op(info), alpha(scale) {}
  double alpha;

  std::string attributes() const override { return fmt::format("scale={:g}", alpha); }
  Shape shape(std::span<const Shape> in) const override {
    const Shape &q = in[input_q], &k = in[input_k], &v = in[input_v];
    const auto batch = [](const Shape& s) { return s.leading(s.rank() - 2); };
    require(q.rank() >= 3 && k.rank() == q.rank() && v.rank() == q.rank() && batch(k) == batch(q) &&
                batch(v) == batch(q) && k[-1] == q[-1] && v[-2] == k[-2] && k[-2] > 0,
            "attention needs q [N…, T, d], k [N…, S, d] and v [N…, S, e], got {}, {} and {}", q.str(), k.str(),
            v.str());
    return q.leading(q.rank() - 1) + Shape{v[-1]};
  }
  // P, from q and k, is part of every map; v of those in q and k.
  Needs needs(ActiveSet active) const override {
    return {.inputs = 1U << input_q | 1U << input_k | ((active & 3U) != 0 ? 1U << input_v : 0U)};
  }
  Variable probabilities(const Variable& q, const Variable& k) const {
    return softmax(scale(matmul(q, turned(k)), alpha));
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return matmul(probabilities(in[input_q], in[input_k]), in[input_v]).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    const Variable q = at.input(input_q), k = at.input(input_k), P = probabilities(q, k);
    Variable dS, dy;
    if (t[input_q].defined()) dS = matmul(t[input_q], turned(k));
    if (t[input_k].defined()) dS = add_defined(dS, matmul(q, turned(t[input_k])));
    if (dS.defined()) dy = matmul(scale(P * (dS - dot(P, dS)), alpha), at.input(input_v));
    return t[input_v].defined() ? add_defined(dy, matmul(P, t[input_v])) : dy;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const Variable q = at.input(input_q), k = at.input(input_k), P = probabilities(q, k);
    std::vector<Variable> out(3);
    if (at.active(input_v)) out[input_v] = matmul(turned(P), c);
    if (!at.active(input_q) && !at.active(input_k)) return out;
    const Variable dP = matmul(c, turned(at.input(input_v)));
    const Variable g = scale(P * (dP - dot(P, dP)), alpha);
    if (at.active(input_q)) out[input_q] = matmul(g, k);
    if (at.active(input_k)) out[input_k] = matmul(turned(g), q);
    return out;
  }
};

}  // namespace

Variable attention(const Variable& q, const Variable& k, const Variable& v, double scale) {
  return apply(Attention(scale), {q, k, v});
}

}  // namespace fastntk
