#include "models/transformer.h"

#include <cmath>

#include "engine/ops/activation.h"
#include "engine/ops/attention.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

// The rows [from, to) of tokens [N, T, D].
Variable some_rows(const Variable& x, int64_t from, int64_t to) {
  return from == 0 && to == x.extent(1) ? x : slice(x, 1, from, to);
}

// The same tokens for every sample: [1 or N, T, D] → [N, T, D].
Variable for_samples(const Variable& x, int64_t samples) { return expand(x, {samples, x.extent(1), x.extent(2)}); }

// Tokens of two groups, either of which may have none, in one sequence.
Variable join(const Variable& a, const Variable& b) {
  if (!a.defined()) return b;
  return b.defined() ? concat({a, b}, 1) : a;
}

// A vector of parameters [1 or N, D] beside tokens.
Variable beside_tokens(const Variable& v) { return reshape(v, {v.extent(0), 1, v.extent(1)}); }

}  // namespace

Projection::Projection(int64_t in, int64_t out, bool bias, const LowRank& lora, const Initial& weight)
    : out_(out), weight_(add_parameter("weight", {out, in}, weight)) {
  if (bias) bias_ = &add_parameter("bias", {out}, Initial::constant(0));
  if (lora.rank == 0) return;
  down_ = &add_parameter("lora_A", {lora.rank, in}, Initial::uniform(1 / std::sqrt(static_cast<double>(in))));
  up_ = &add_parameter("lora_B", {out, lora.rank}, Initial::constant(0));
  lora_scale_ = lora.alpha / static_cast<double>(lora.rank);
}

Variable Projection::features(const Pass& pass, const Variable& x, int64_t from, int64_t to) const {
  const bool all = from == 0 && to == out_;
  const auto part = [&](const Parameter& parameter) {  // [1 or N, out, …]
    const Variable v = pass.parameter(parameter);
    return all ? v : slice(v, 1, from, to);
  };
  Variable y = linear(x, part(weight_));
  if (bias_) y = y + beside_tokens(part(*bias_));
  if (!up_) return y;
  return y + scale(linear(linear(x, pass.parameter(*down_)), part(*up_)), lora_scale_);
}

// Multi-head attention: qkv gives query, key and value of all heads, one after the other.
class Block::Attention final : public Module {
 public:
  explicit Attention(const BlockShape& s)
      : width_(s.width),
        heads_(s.heads),
        qkv_(add_child("qkv", std::make_unique<Projection>(s.width, 3 * s.width, s.qkv_bias, s.lora))),
        proj_(add_child("proj", std::make_unique<Projection>(s.width, s.width, true, s.lora))),
        drop_(add_child("proj_drop", std::make_unique<Dropout>(s.dropout))) {}

  Variable forward(const Pass& pass, const Variable& x) const override { return rows(pass, x, {}, 0, x.extent(1)); }
  Variable rows(const Pass& pass, const Variable& x, const Variable& prompts, int64_t from, int64_t to) const {
    const int64_t T = x.extent(1);
    const int64_t head_width = width_ / heads_;
    const double factor = 1 / std::sqrt(static_cast<double>(head_width));
    if (!prompts.defined() && from == 0 && to == T)
      return project_out(pass, self_attention(qkv_.forward(pass, x), heads_, factor));
    Parts parts = project(pass, x, std::min(from, T), std::min(to, T));
    if (prompts.defined()) {
      const int64_t N = x.extent(0);
      const Parts more = project(pass, prompts, std::max<int64_t>(from - T, 0), std::max<int64_t>(to - T, 0));
      parts.key = join(parts.key, for_samples(more.key, N));
      parts.value = join(parts.value, for_samples(more.value, N));
      if (more.query.defined()) parts.query = join(parts.query, for_samples(more.query, N));
    }
    const Variable q = split(parts.query), k = split(parts.key), v = split(parts.value);
    const Variable y = attention(q, k, v, factor);
    return project_out(pass, reshape(permute(y, {0, 2, 1, 3}), {y.extent(0), to - from, width_}));
  }

 private:
  struct Parts {
    Variable query, key, value;
  };
  Variable project_out(const Pass& pass, const Variable& heads) const {
    return drop_.forward(pass, proj_.forward(pass, heads));
  }
  // Keys and values of all rows of x, queries of the rows [from, to).
  Parts project(const Pass& pass, const Variable& x, int64_t from, int64_t to) const {
    if (from == 0 && to == x.extent(1)) {
      const Variable y = qkv_.forward(pass, x);
      const auto part = [&](int64_t i) { return slice(y, -1, i * width_, (i + 1) * width_); };
      return {part(0), part(1), part(2)};
    }
    // One product for each: the cotangent of a part of a wider one would have to be made as wide again.
    const auto part = [&](const Variable& rows, int64_t i) {
      return qkv_.features(pass, rows, i * width_, (i + 1) * width_);
    };
    return {from < to ? part(some_rows(x, from, to), 0) : Variable{}, part(x, 1), part(x, 2)};
  }
  // [N, T, D] → [N, heads, T, D / heads]
  Variable split(const Variable& x) const {
    return permute(reshape(x, {x.extent(0), x.extent(1), heads_, width_ / heads_}), {0, 2, 1, 3});
  }

  int64_t width_, heads_;
  const Projection &qkv_, &proj_;
  const Dropout& drop_;
};

// Two linear maps with a GELU between them. The second of an adapter starts at zero.
class Block::Mlp final : public Module {
 public:
  static std::unique_ptr<Mlp> of_block(const BlockShape& s) {
    return std::make_unique<Mlp>(s.width, s.hidden, "fc1", "fc2", initial_weight, s.dropout);
  }
  static std::unique_ptr<Mlp> adapter(const BlockShape& s) {
    return std::make_unique<Mlp>(s.width, s.adapter, "down", "up", Initial::constant(0), 0);
  }
  Mlp(int64_t width, int64_t hidden, const std::string& first, const std::string& second, const Initial& last,
      double dropout)
      : first_(add_child(first, std::make_unique<Projection>(width, hidden))),
        second_(add_child(second, std::make_unique<Projection>(hidden, width, true, LowRank{}, last))),
        drop1_(add_child("drop1", std::make_unique<Dropout>(dropout))),
        drop2_(add_child("drop2", std::make_unique<Dropout>(dropout))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable h = drop1_.forward(pass, gelu(first_.forward(pass, x)));
    return drop2_.forward(pass, second_.forward(pass, h));
  }

 private:
  const Projection &first_, &second_;
  const Dropout &drop1_, &drop2_;
};

Block::Block(const BlockShape& s) {
  const auto add_scale = [&](const char* name) {
    return s.layer_scale > 0 ? &add_child(name, std::make_unique<LayerScale>(s.width, s.layer_scale)) : nullptr;
  };
  norm1_ = &add_child("norm1", std::make_unique<LayerNorm>(s.width, 1e-6));
  attention_ = &add_child("attn", std::make_unique<Attention>(s));
  scale1_ = add_scale("ls1");
  norm2_ = &add_child("norm2", std::make_unique<LayerNorm>(s.width, 1e-6));
  mlp_ = &add_child("mlp", Mlp::of_block(s));
  if (s.adapter > 0) adapter_ = &add_child("adapter", Mlp::adapter(s));
  scale2_ = add_scale("ls2");
  drop_path1_ = &add_child("drop_path1", std::make_unique<DropPath>(s.drop_path));
  drop_path2_ = &add_child("drop_path2", std::make_unique<DropPath>(s.drop_path));
}

Variable Block::rows(const Pass& pass, const Variable& x, const Variable& prompts, int64_t from, int64_t to) const {
  const int64_t N = x.extent(0), T = x.extent(1);
  Variable z = from < T ? some_rows(x, from, std::min(to, T)) : Variable{};
  if (prompts.defined() && to > T)
    z = join(z, for_samples(some_rows(prompts, std::max<int64_t>(from - T, 0), to - T), N));

  Variable y = attention_->rows(pass, norm1_->forward(pass, x),
                                prompts.defined() ? norm1_->forward(pass, prompts) : Variable{}, from, to);
  if (scale1_) y = scale1_->forward(pass, y);
  z = z + drop_path1_->forward(pass, y);
  y = mlp_->forward(pass, norm2_->forward(pass, z));
  if (adapter_) y = y + adapter_->forward(pass, y);
  if (scale2_) y = scale2_->forward(pass, y);
  return z + drop_path2_->forward(pass, y);
}

}  // namespace fastntk
