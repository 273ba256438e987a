#include "engine/ops/layer_norm.h"

#include "engine/backend.h"
#include "engine/ops/coefficient.h"

namespace fastntk {
namespace {

enum Input : int { input_x, input_gamma, input_beta };

// x̂ = (x − m) r by row, m = mean x if `centre`, else 0; r = 1 / √(mean (x − m)² + ε). y = x̂ γ + β. The core
//   dx̂ = r (dx − [centre] mean dx − x̂ mean(x̂ dx))
// is self-adjoint. Extras: m (if centre) and r, [N, …, 1].
struct RowNorm : Op {
  RowNorm(const OpInfo& info, bool centre, double epsilon) : Op(info), centre(centre), epsilon(epsilon) {}
  bool centre;
  double epsilon;

  std::string attributes() const override { return fmt::format("epsilon={:g}", epsilon); }
  Shape shape(std::span<const Shape> in) const override {
    const Shape& x = in[input_x];
    require(x.rank() >= 2 && x[-1] > 0, "{} needs x [N, …, D] with D > 0, got {}", name(), x.str());
    for (size_t i = 1; i < in.size(); i++)
      require(in[i] == Shape{1, x[-1]} || in[i] == Shape{x[0], x[-1]}, "{}: {} of x {} must be [1 or {}, {}], got {}",
              name(), i == input_gamma ? "gamma" : "beta", x.str(), x[0], x[-1], in[i].str());
    return x;
  }
  Needs needs(ActiveSet active) const override {
    return {.inputs = ((active >> input_x | active >> input_gamma) & 1U) << input_x | (active >> input_x & 1U)
                                                                                          << input_gamma};
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet active, std::vector<Tensor>& extras) const override {
    for (const Tensor& t : in)
      require(t.dtype() == in[0].dtype(), "{}: {} and {}: the types differ", name(), in[0].describe(), t.describe());
    const Tensor x = images(in[input_x]);
    Tensor y(in[input_x].shape(), x.dtype(), x.device()), y_images = images(y);
    Tensor a, b, mean, rstd;
    if (in.size() > input_gamma) a = in[input_gamma].contiguous();
    if (in.size() > input_beta) b = in[input_beta].contiguous();
    if (active & (1U << input_x | 1U << input_gamma)) {
      Shape statistics = in[input_x].shape();
      statistics[-1] = 1;
      if (centre) extras.push_back(mean = Tensor(statistics, x.dtype(), x.device()));
      extras.push_back(rstd = Tensor(statistics, x.dtype(), x.device()));
    }
    backend_of(x).row_norm({.x = x,
                            .a = pointer(a),
                            .b = pointer(b),
                            .epsilon = epsilon,
                            .centre = centre,
                            .y = y_images,
                            .mean = pointer(mean),
                            .rstd = pointer(rstd)});
    return y;
  }
  template <class T>
  static T* pointer(T& t) {
    return t.defined() ? &t : nullptr;
  }

  bool has_gamma(const Linearisation& at) const { return at.inputs() > input_gamma; }
  static Variable row_mean(const Variable& v) { return mean(v, {-1}); }
  // r and x̂; as functions of x for a map that is itself being differentiated.
  std::pair<Variable, Variable> at_point(const Linearisation& at) const {
    const Variable x = at.input(input_x);
    if (!at.recording()) {
      const Variable rstd = at.extra(centre ? 1 : 0);
      return {rstd, (centre ? x - at.extra(0) : x) * rstd};
    }
    const Variable centred = centre ? x - row_mean(x) : x;
    const Variable rstd =
        Variable(Tensor::full({1}, 1, x.dtype(), x.value.device())) / sqrt(shift(row_mean(square(centred)), epsilon));
    return {rstd, centred * rstd};
  }
  // after ⊙ core(before ⊙ t) for a stack of t; before and after are γ or none.
  Variable core(const Linearisation& at, const Variable& t, bool before, bool after) const {
    if (at.recording()) {
      const auto [rstd, xhat] = at_point(at);
      const Variable gamma = before || after ? spread(at.input(input_gamma), at.input_shape(input_x)) : Variable{};
      const Variable u = before ? t * gamma : t;
      const Variable deviation = centre ? u - row_mean(u) : u;
      const Variable out = (deviation - xhat * row_mean(u * xhat)) * rstd;
      return after ? out * gamma : out;
    }
    const int rank = at.input_shape(input_x).rank();
    const Tensor tangents = stacked_images(t.value, rank), x = images(at.input(input_x).value);
    const Tensor gamma = before || after ? at.input(input_gamma).value.contiguous() : Tensor();
    Tensor out(tangents.shape(), t.dtype(), tangents.device());
    backend_of(x).row_norm_core({.t = tangents,
                                 .x = x,
                                 .mean = centre ? &at.extra(0) : nullptr,
                                 .rstd = at.extra(centre ? 1 : 0),
                                 .before = before ? &gamma : nullptr,
                                 .after = after ? &gamma : nullptr,
                                 .out = out});
    return out.reshape(t.shape());
  }

  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    const Shape& x = at.input_shape(input_x);
    Variable sum;
    if (t[input_x].defined()) sum = core(at, t[input_x], false, has_gamma(at));
    if (has_gamma(at) && t[input_gamma].defined())
      sum = add_defined(sum, at_point(at).second * spread(t[input_gamma], x));
    if (at.inputs() > input_beta && t[input_beta].defined()) {
      const Shape lead = t[input_beta].shape().leading(t[input_beta].rank() - 2);
      sum = add_defined(sum, expand(spread(t[input_beta], x), lead + x));
    }
    return sum;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    std::vector<Variable> out(static_cast<size_t>(at.inputs()));
    if (at.active(input_x)) out[input_x] = core(at, c, has_gamma(at), false);
    if (!at.active(input_gamma) && !at.active(input_beta)) return out;
    if (at.recording()) {
      if (at.active(input_gamma))
        out[input_gamma] = coefficient_cotangent(at, input_x, input_gamma, c * at_point(at).second);
      if (at.active(input_beta)) out[input_beta] = coefficient_cotangent(at, input_x, input_beta, c);
      return out;
    }
    // Both sums in one pass over the cotangents.
    const Tensor cotangents = stacked_images(c.value, at.input_shape(input_x).rank());
    const auto room = [&](int i) {
      const Shape shape = Shape{cotangents.extent(0)} + at.input_shape(i);
      return at.active(i) ? Tensor(shape, c.dtype(), cotangents.device()) : Tensor();
    };
    Tensor x, sum_xhat = room(input_gamma), sum = at.inputs() > input_beta ? room(input_beta) : Tensor();
    if (sum_xhat.defined()) x = images(at.input(input_x).value);
    backend_of(cotangents)
        .row_norm_sums({.t = cotangents,
                        .x = pointer(x),
                        .mean = sum_xhat.defined() && centre ? &at.extra(0) : nullptr,
                        .rstd = sum_xhat.defined() ? &at.extra(centre ? 1 : 0) : nullptr,
                        .sum = pointer(sum),
                        .sum_xhat = pointer(sum_xhat)});
    const Shape lead = c.shape().leading(c.rank() - at.input_shape(input_x).rank());
    if (sum_xhat.defined()) out[input_gamma] = sum_xhat.reshape(lead + at.input_shape(input_gamma));
    if (sum.defined()) out[input_beta] = sum.reshape(lead + at.input_shape(input_beta));
    return out;
  }
};

struct LayerNorm final : RowNorm {
  static inline const OpInfo& info = register_op({"layer_norm", "y = x̂ ⊙ γ + β, x̂ = (x − mean x) rstd(x) by row",
                                                  "dy = rstd (dx − mean dx − x̂ mean(x̂ dx)) ⊙ γ + x̂ ⊙ dγ + dβ"});
  explicit LayerNorm(double epsilon) : RowNorm(info, true, epsilon) {}
};

struct RmsNorm final : RowNorm {
  static inline const OpInfo& info = register_op(
      {"rms_norm", "y = x̂ ⊙ γ, x̂ = x / √(mean x² + ε) by row", "dy = rstd (dx − x̂ mean(x̂ dx)) ⊙ γ + x̂ ⊙ dγ"});
  explicit RmsNorm(double epsilon) : RowNorm(info, false, epsilon) {}
};

}  // namespace

Variable layer_norm(const Variable& x, const Variable& gamma, const Variable& beta, double epsilon) {
  require(gamma.defined() || !beta.defined(), "layer_norm: beta without gamma");
  std::vector<Variable> inputs = {x};
  if (gamma.defined()) inputs.push_back(gamma);
  if (beta.defined()) inputs.push_back(beta);
  return apply(LayerNorm(epsilon), std::move(inputs));
}

Variable rms_norm(const Variable& x, const Variable& gamma, double epsilon) {
  return gamma.defined() ? apply(RmsNorm(epsilon), {x, gamma}) : apply(RmsNorm(epsilon), {x});
}

Variable group_norm(const Variable& x, int64_t groups, const Variable& gamma, const Variable& beta, double epsilon) {
  require(x.rank() >= 2, "group_norm needs x [N, …, C], got {}", x.shape().str());
  const int64_t N = x.extent(0), C = x.extent(-1), positions = x.shape().slice(1, x.rank() - 1).elements();
  require(groups > 0 && C % groups == 0, "group_norm: {} channels in {} equal groups", C, groups);
  require(gamma.defined() == beta.defined(), "group_norm: gamma and beta go together");
  for (const Variable* v : {&gamma, &beta})
    require(!v->defined() || v->shape() == Shape{1, C} || v->shape() == Shape{N, C},
            "group_norm: {} of x {} must be [1 or {}, {}], got {}", v == &gamma ? "gamma" : "beta", x.shape().str(), N,
            C, v->shape().str());
  // A group as one row.
  const Variable grouped = permute(reshape(x, {N, positions, groups, C / groups}), {0, 2, 1, 3});
  const Variable xhat = layer_norm(reshape(grouped, {N, groups, positions * C / groups}), {}, {}, epsilon);
  const Variable y = reshape(permute(reshape(xhat, {N, groups, positions, C / groups}), {0, 2, 1, 3}), x.shape());
  return gamma.defined() ? y * spread(gamma, x.shape()) + spread(beta, x.shape()) : y;
}

Variable instance_norm(const Variable& x, const Variable& gamma, const Variable& beta, double epsilon) {
  require(x.rank() >= 3 && x.shape().slice(1, x.rank() - 1).elements() > 1,
          "instance_norm needs x [N, …, C] with more than one position, got {}", x.shape().str());
  return group_norm(x, x.extent(-1), gamma, beta, epsilon);
}

}  // namespace fastntk
