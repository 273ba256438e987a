#include "engine/ops/attention.h"

#include <array>

#include "engine/backend.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"

namespace fastntk {
namespace {

enum Input : int { input_q, input_k, input_v };
using Parts = std::array<Variable, 3>;  // q, k, v, or what belongs to them

Variable turned(const Variable& x) { return transpose(x, -2, -1); }
// Σ p ⊙ t over the keys.
Variable dot(const Variable& p, const Variable& t) { return sum(p * t, {-1}); }

// y = P v, P = softmax(S), S = α q kᵀ, and its map in public ops.
//   dS = α (dq kᵀ + q dkᵀ),  dP = P ⊙ (dS − ⟨P, dS⟩),  dy = dP v + P dv
// transposed: dv = Pᵀ c;  g = P ⊙ (c vᵀ − ⟨P, c vᵀ⟩);  dq = α g k;  dk = α gᵀ q.
struct Formula {
  double alpha;

  Variable probabilities(const Variable& q, const Variable& k) const {
    return softmax(scale(matmul(q, turned(k)), alpha));
  }
  // What of t is undefined is zero. v may be undefined when only its tangent is not zero.
  Variable differential(const Parts& x, const Parts& t) const {
    const auto& [q, k, v] = x;
    const Variable P = probabilities(q, k);
    Variable dS, dy;
    if (t[input_q].defined()) dS = matmul(t[input_q], turned(k));
    if (t[input_k].defined()) dS = add_defined(dS, matmul(q, turned(t[input_k])));
    if (dS.defined()) dy = matmul(scale(P * (dS - dot(P, dS)), alpha), v);
    return t[input_v].defined() ? add_defined(dy, matmul(P, t[input_v])) : dy;
  }
  Parts transposed(const Parts& x, const Variable& c, const std::array<bool, 3>& active) const {
    const auto& [q, k, v] = x;
    const Variable P = probabilities(q, k);
    Parts out;
    if (active[input_v]) out[input_v] = matmul(turned(P), c);
    if (!active[input_q] && !active[input_k]) return out;
    const Variable dP = matmul(c, turned(v));
    const Variable g = scale(P * (dP - dot(P, dP)), alpha);
    if (active[input_q]) out[input_q] = matmul(g, k);
    if (active[input_k]) out[input_k] = matmul(turned(g), q);
    return out;
  }
};

// As the kernels read it.
Tensor with_whole_rows(const Tensor& t) { return t.strides()[-1] == 1 ? t : t.contiguous(); }
// A stack of cotangents with one leading axis: [K…, own shape] → [K, own shape].
Tensor stacked(const Tensor& t, int rank) {
  const int lead = t.rank() - rank;
  return lead == 1 ? t : t.reshape(Shape{t.shape().leading(lead).elements()} + t.shape().trailing(rank));
}
void require_same_types(const Op& op, std::span<const Tensor> in) {
  for (const Tensor& t : in)
    require(t.dtype() == in[0].dtype(), "{}: {} and {}: the types differ", op.name(), in[0].describe(), t.describe());
}

struct Attention final : Op {
  static inline const OpInfo& info = register_op({"attention", "y = P v, P = softmax(α q kᵀ)",
                                                  "dy = dP v + P dv, dP = P ⊙ (dS − ⟨P, dS⟩), dS = α (dq kᵀ + q dkᵀ)"});
  explicit Attention(double scale) : Op(info), formula{scale} {}
  Formula formula;

  std::string attributes() const override { return fmt::format("scale={:g}", formula.alpha); }
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
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    require_same_types(*this, in);
    const Tensor q = with_whole_rows(in[input_q]), k = with_whole_rows(in[input_k]), v = with_whole_rows(in[input_v]);
    Tensor y(q.shape().leading(q.rank() - 1) + Shape{v.extent(-1)}, q.dtype(), q.device());
    backend_of(q).attention({.q = q, .k = k, .v = v, .scale = formula.alpha, .y = y});
    return y;
  }
  static Parts saved(const Linearisation& at, bool with_v) {
    return {at.input(input_q), at.input(input_k), with_v ? at.input(input_v) : Variable{}};
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return formula.differential(saved(at, t[input_q].defined() || t[input_k].defined()),
                                {t[input_q], t[input_k], t[input_v]});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const std::array<bool, 3> active = {at.active(input_q), at.active(input_k), at.active(input_v)};
    const bool with_v = active[input_q] || active[input_k];
    if (at.recording()) {
      const Parts out = formula.transposed(saved(at, with_v), c, active);
      return {out.begin(), out.end()};
    }
    const int rank = at.output_shape().rank();
    const Tensor q = with_whole_rows(at.input(input_q).value), k = with_whole_rows(at.input(input_k).value);
    // Of an v that is not read only the shape counts.
    const Tensor v = with_v ? with_whole_rows(at.input(input_v).value)
                            : Tensor::zeros({}, q.dtype(), q.device()).expand(at.input_shape(input_v));
    const Tensor cotangent = with_whole_rows(stacked(c.value, rank));
    std::array<Tensor, 3> d;
    for (int i = 0; i < 3; i++)
      if (active[static_cast<size_t>(i)])
        d[static_cast<size_t>(i)] = Tensor(Shape{cotangent.extent(0)} + at.input_shape(i), q.dtype(), q.device());
    const auto pointer = [&](Input i) { return d[i].defined() ? &d[i] : nullptr; };
    backend_of(q).attention_transposed({.q = q,
                                        .k = k,
                                        .v = v,
                                        .scale = formula.alpha,
                                        .cotangent = cotangent,
                                        .dq = pointer(input_q),
                                        .dk = pointer(input_k),
                                        .dv = pointer(input_v)});
    std::vector<Variable> out(3);
    for (int i = 0; i < 3; i++)
      if (active[static_cast<size_t>(i)])
        out[static_cast<size_t>(i)] =
            d[static_cast<size_t>(i)].reshape(c.shape().leading(c.rank() - rank) + at.input_shape(i));
    return out;
  }
};

// Attention of x = [q, k, v], each [N…, T, heads · d].
struct SelfAttention final : Op {
  static inline const OpInfo& info =
      register_op({"self_attention", "y = P v by head, [q, k, v] = x, P = softmax(α q kᵀ)",
                   "dy = dP v + P dv, dP = P ⊙ (dS − ⟨P, dS⟩), dS = α (dq kᵀ + q dkᵀ)"});
  SelfAttention(int64_t heads, double scale) : Op(info), heads(heads), formula{scale} {}
  int64_t heads;
  Formula formula;

  std::string attributes() const override { return fmt::format("heads={} scale={:g}", heads, formula.alpha); }
  Shape shape(std::span<const Shape> in) const override {
    const Shape& x = in[0];
    require(heads > 0 && x.rank() >= 3 && x[-2] > 0 && x[-1] % (3 * heads) == 0,
            "self_attention of {} heads needs x [N…, T, 3 · {} · d] with T > 0, got {}", heads, heads, x.str());
    Shape y = x;
    y[-1] /= 3;
    return y;
  }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }

  // [N…, T, heads · d] ↔ [N…, heads, T, d]
  Variable split(const Variable& x) const {
    return transpose(reshape(x, x.shape().leading(x.rank() - 1) + Shape{heads, x.extent(-1) / heads}), -3, -2);
  }
  static Variable join(const Variable& x) {
    const Variable y = transpose(x, -3, -2);
    return reshape(y, y.shape().leading(y.rank() - 2) + Shape{y.extent(-2) * y.extent(-1)});
  }
  Parts parts(const Variable& x) const {
    const int64_t width = x.extent(-1) / 3;
    Parts p;
    for (int i = 0; i < 3; i++) p[static_cast<size_t>(i)] = split(slice(x, -1, i * width, (i + 1) * width));
    return p;
  }
  // The same of tensors, as views: `count` matrices side by side → each [N…, heads, T, d].
  std::vector<Tensor> views(const Tensor& x, int64_t count) const {
    const Tensor apart =
        x.reshape(x.shape().leading(x.rank() - 1) + Shape{count, heads, x.extent(-1) / (count * heads)});
    std::vector<Tensor> out;
    for (int64_t i = 0; i < count; i++) out.push_back(apart.select(-3, i).transpose(-3, -2));
    return out;
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape x = in[0].shape();
    Tensor y(shape(std::span(&x, 1)), in[0].dtype(), in[0].device());
    const std::vector<Tensor> qkv = views(in[0].contiguous(), 3);
    Tensor heads_of_y = views(y, 1)[0];
    backend_of(y).attention({.q = qkv[0], .k = qkv[1], .v = qkv[2], .scale = formula.alpha, .y = heads_of_y});
    return y;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return join(formula.differential(parts(at.input(0)), parts(t[0])));
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    if (at.recording()) {
      const Parts d = formula.transposed(parts(at.input(0)), split(c), {true, true, true});
      return {concat({join(d[input_q]), join(d[input_k]), join(d[input_v])}, -1)};
    }
    const int rank = at.output_shape().rank();
    const Tensor cotangent = stacked(c.value.contiguous(), rank);
    Tensor dx(Shape{cotangent.extent(0)} + at.input_shape(0), c.dtype(), cotangent.device());
    const std::vector<Tensor> qkv = views(at.input(0).value.contiguous(), 3);
    std::vector<Tensor> d = views(dx, 3);
    backend_of(dx).attention_transposed({.q = qkv[0],
                                         .k = qkv[1],
                                         .v = qkv[2],
                                         .scale = formula.alpha,
                                         .cotangent = views(cotangent, 1)[0],
                                         .dq = &d[0],
                                         .dk = &d[1],
                                         .dv = &d[2]});
    return {dx.reshape(c.shape().leading(c.rank() - rank) + at.input_shape(0))};
  }
};

}  // namespace

Variable attention(const Variable& q, const Variable& k, const Variable& v, double scale) {
  return apply(Attention(scale), {q, k, v});
}
Variable self_attention(const Variable& qkv, int64_t heads, double scale) {
  return apply(SelfAttention(heads, scale), {qkv});
}

}  // namespace fastntk
