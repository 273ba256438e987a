#include "engine/ops/normalisation.h"

#include <cmath>

#include "engine/backend.h"
#include "engine/ops/coefficient.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

// Inputs of both ops: x [N, …, C], γ [1 or N, C], β [1 or N, C], and perhaps a residual of x's shape.
enum Input : int { input_x, input_gamma, input_beta, input_residual };

struct BatchNorm : Op {
  BatchNorm(const OpInfo& info, double epsilon, bool relu) : Op(info), epsilon(epsilon), relu(relu) {}
  double epsilon;
  bool relu;

  std::string attributes() const override { return fmt::format("epsilon={:g}{}", epsilon, relu ? " relu" : ""); }
  Shape shape(std::span<const Shape> in) const override {
    const Shape& x = in[input_x];
    require(x.rank() >= 2, "{} needs x [N, …, C], got {}", name(), x.str());
    for (const int i : {input_gamma, input_beta})
      require(in[static_cast<size_t>(i)] == Shape{1, x[-1]} || in[static_cast<size_t>(i)] == Shape{x[0], x[-1]},
              "{}: {} of x {} must be [1 or {}, {}], got {}", name(), i == input_gamma ? "gamma" : "beta", x.str(),
              x[0], x[-1], in[static_cast<size_t>(i)].str());
    if (in.size() > input_residual)
      require(in[input_residual] == x, "{}: the residual must have x's shape {}, got {}", name(), x.str(),
              in[input_residual].str());
    return x;
  }

  // What both modes share: y from x, mean and rstd.
  Tensor evaluate(std::span<const Tensor> in, const Tensor& mean, const Tensor& rstd) const {
    Tensor y(in[input_x].shape(), in[input_x].dtype(), in[input_x].device());
    Tensor y_images = images(y);
    const Tensor x = images(in[input_x]), a = multiply(in[input_gamma], rstd).value, b = in[input_beta].contiguous();
    const Tensor b_full =
        b.extent(0) == a.extent(0) ? b : b.expand({std::max(a.extent(0), b.extent(0)), b.extent(1)}).contiguous();
    const Tensor a_full = a.extent(0) == b_full.extent(0) ? a : a.expand(b_full.shape()).contiguous();
    Tensor residual;
    if (in.size() > input_residual) residual = images(in[input_residual]);
    backend_of(x).channel_affine({.x = x,
                                  .mean = mean,
                                  .a = a_full,
                                  .b = b_full,
                                  .residual = residual.defined() ? &residual : nullptr,
                                  .relu = relu,
                                  .y = y_images});
    return y;
  }

  // dy = [y > 0] ⊙ (dx̂ γ + x̂ dγ + dβ + dresidual)
  Variable combine(const Linearisation& at, std::span<const Variable> t, const Variable& dxhat,
                   const Variable& xhat) const {
    const Shape& x = at.input_shape(input_x);
    Variable sum;
    if (dxhat.defined()) sum = dxhat * spread(at.input(input_gamma), x);
    if (t[input_gamma].defined()) sum = add_defined(sum, xhat * spread(t[input_gamma], x));
    if (t[input_beta].defined()) {
      const Variable spread_beta = spread(t[input_beta], x);
      const Shape full = t[input_beta].shape().leading(t[input_beta].rank() - 2) + x;
      sum = add_defined(sum, expand(spread_beta, full));
    }
    if (t.size() > input_residual && t[input_residual].defined()) sum = add_defined(sum, t[input_residual]);
    return relu ? where_positive(sum, at.output()) : sum;
  }
};

// y = x̂ γ + β (+ residual), ReLU;  x̂ = (x − mean) rstd with constant mean and rstd, so the map is diagonal in x.
struct BatchNormEval final : BatchNorm {
  static inline const OpInfo& info = register_op({"batch_norm_eval", "y = relu((x − mean) rstd ⊙ γ + β + residual)",
                                                  "dy = [y > 0] ⊙ (rstd γ ⊙ dx + x̂ ⊙ dγ + dβ + dresidual)"});
  BatchNormEval(Tensor mean, Tensor rstd, double epsilon, bool relu)
      : BatchNorm(info, epsilon, relu), mean(std::move(mean)), rstd(std::move(rstd)) {}
  Tensor mean, rstd;

  Shape shape(std::span<const Shape> in) const override {
    require(mean.shape() == Shape{in[input_x][-1]}, "{}: statistics of {} channels for x {}", name(),
            mean.shape().str(), in[input_x].str());
    return BatchNorm::shape(in);
  }
  Needs needs(ActiveSet active) const override {
    return {.inputs = (active >> input_gamma & 1U) << input_x | (active >> input_x & 1U) << input_gamma,
            .output = relu};
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return evaluate(in, mean, rstd);
  }
  Variable xhat(const Linearisation& at) const { return (at.input(input_x) - mean) * rstd; }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    if (!at.recording() && t[input_gamma].defined() && t[input_beta].defined() && one_stack(at, t))
      return fused_jvp(at, t);
    return combine(at, t, t[input_x].defined() ? t[input_x] * rstd : Variable{},
                   t[input_gamma].defined() ? xhat(at) : Variable{});
  }
  // True when all tangents have the same leading axes.
  static bool one_stack(const Linearisation& at, std::span<const Variable> t) {
    const Shape lead = t[input_gamma].shape().leading(t[input_gamma].rank() - 2);
    for (size_t i = 0; i < t.size(); i++)
      if (t[i].defined() && t[i].shape() != lead + at.input_shape(static_cast<int>(i))) return false;
    return true;
  }
  // The common case, γ and β both with tangents, in at most three passes for each tangent of a stack.
  Variable fused_jvp(const Linearisation& at, std::span<const Variable> t) const {
    const Shape lead = t[input_gamma].shape().leading(t[input_gamma].rank() - 2), &x_shape = at.input_shape(input_x);
    const int64_t stack = lead.elements();
    const Variable x = at.input(input_x), slope = at.active(input_x) ? at.input(input_gamma) * rstd : Variable{};
    const Tensor zero = Tensor::zeros(mean.shape(), mean.dtype(), mean.device());
    Tensor out(Shape{stack} + x_shape, x.dtype(), mean.device());
    for (int64_t k = 0; k < stack; k++) {
      const auto tangent = [&](int i) {
        const Variable& v = t[static_cast<size_t>(i)];
        return v.defined() ? v.value.reshape(Shape{stack} + at.input_shape(i)).select(0, k) : Tensor();
      };
      Tensor total = t.size() > input_residual ? tangent(input_residual) : Tensor();
      if (t[input_x].defined()) {
        Tensor y(x_shape, x.dtype(), mean.device());
        affine(tangent(input_x), zero, slope.value, zero.reshape({1, zero.extent(0)}), total, y);
        total = y;
      }
      Tensor y = out.select(0, k);
      affine(x.value, mean, multiply(tangent(input_gamma), rstd).value, tangent(input_beta), total, y);
    }
    const Variable sum = out.reshape(lead + x_shape);
    return relu ? where_positive(sum, at.output()) : sum;
  }
  // y ← (x − centre) ⊙ a + b (+ plus); y is contiguous.
  static void affine(const Tensor& x, const Tensor& centre, const Tensor& a, const Tensor& b, const Tensor& plus,
                     Tensor& y) {
    const Shape full = broadcast(a.shape(), b.shape(), "batch_norm_eval");
    const Tensor in = images(x), a_full = a.expand(full).contiguous(), b_full = b.expand(full).contiguous();
    const Tensor residual = plus.defined() ? images(plus) : Tensor();
    Tensor y_images = images(y);
    backend_of(x).channel_affine({.x = in,
                                  .mean = centre,
                                  .a = a_full,
                                  .b = b_full,
                                  .residual = residual.defined() ? &residual : nullptr,
                                  .y = y_images});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return at.recording() ? composed_vjp(at, c) : fused_vjp(at, c);
  }
  std::vector<Variable> composed_vjp(const Linearisation& at, const Variable& c) const {
    const Variable g = relu ? where_positive(c, at.output()) : c;
    std::vector<Variable> out(static_cast<size_t>(at.inputs()));
    if (at.active(input_x)) out[input_x] = g * (spread(at.input(input_gamma), at.input_shape(input_x)) * rstd);
    if (at.active(input_gamma)) out[input_gamma] = coefficient_cotangent(at, input_x, input_gamma, g * xhat(at));
    if (at.active(input_beta)) out[input_beta] = coefficient_cotangent(at, input_x, input_beta, g);
    if (at.inputs() > input_residual && at.active(input_residual)) out[input_residual] = g;
    return out;
  }
  // The same in one pass over the cotangents.
  std::vector<Variable> fused_vjp(const Linearisation& at, const Variable& c) const {
    const Shape& x_shape = at.input_shape(input_x);
    const Tensor cotangent = stacked_images(c.value, x_shape.rank());
    const int64_t K = cotangent.extent(0), C = cotangent.extent(3);
    const Shape lead = c.shape().leading(c.rank() - x_shape.rank());
    std::vector<Variable> out(static_cast<size_t>(at.inputs()));
    Tensor y, x, a, sum_g, sum_gx, masked, dx;
    if (relu) y = images(at.output().value);
    if (at.active(input_gamma)) {
      x = images(at.input(input_x).value);
      sum_gx = Tensor({K, at.input_shape(input_gamma)[0], C}, c.dtype(), mean.device());
    }
    if (at.active(input_beta)) sum_g = Tensor({K, at.input_shape(input_beta)[0], C}, c.dtype(), mean.device());
    if (at.active(input_x)) {
      a = multiply(at.input(input_gamma).value, rstd).value;
      dx = Tensor(cotangent.shape(), c.dtype(), mean.device());
    }
    const bool residual = at.inputs() > input_residual && at.active(input_residual);
    if (residual && relu) masked = Tensor(cotangent.shape(), c.dtype(), mean.device());
    const auto pointer = [](auto& t) { return t.defined() ? &t : nullptr; };
    backend_of(cotangent).channel_affine_transposed({.cotangent = cotangent,
                                                     .y = pointer(y),
                                                     .x = pointer(x),
                                                     .mean = &mean,
                                                     .a = pointer(a),
                                                     .sum_g = pointer(sum_g),
                                                     .sum_gx = pointer(sum_gx),
                                                     .masked = pointer(masked),
                                                     .dx = pointer(dx)});
    if (dx.defined()) out[input_x] = dx.reshape(c.shape());
    if (sum_gx.defined()) out[input_gamma] = multiply(sum_gx, rstd).value.reshape(lead + at.input_shape(input_gamma));
    if (sum_g.defined()) out[input_beta] = sum_g.reshape(lead + at.input_shape(input_beta));
    if (residual) out[input_residual] = relu ? Variable(masked.reshape(c.shape())) : c;
    return out;
  }
};

// y = x̂ γ + β;  x̂ = (x − μ) rstd with μ, rstd from x itself over all axes but the last (M positions). The core is
// self-adjoint:
//   dx̂ = rstd (dx − mean(dx) − x̂ mean(x̂ dx)).
struct BatchNormTrain final : BatchNorm {
  static inline const OpInfo& info = register_op({"batch_norm_train", "y = x̂ ⊙ γ + β, x̂ = (x − μ(x)) rstd(x)",
                                                  "dy = rstd (dx − mean dx − x̂ mean(x̂ dx)) ⊙ γ + x̂ ⊙ dγ + dβ"});
  BatchNormTrain(Tensor running_mean, Tensor running_variance, double momentum, double epsilon)
      : BatchNorm(info, epsilon, false),
        running_mean(std::move(running_mean)),
        running_variance(std::move(running_variance)),
        momentum(momentum) {}
  mutable Tensor running_mean, running_variance;  // contents are updated by forward; shared with the module
  double momentum;

  bool mixes_samples(std::span<const Shape>) const override { return true; }
  Needs needs(ActiveSet active) const override {
    return {.inputs = (active >> input_gamma & 1U) << input_x |
                      (active >> input_x & 1U) * (1U << input_x | 1U << input_gamma)};
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet active, std::vector<Tensor>& extras) const override {
    const Tensor& x = in[input_x];
    require(in[input_gamma].extent(0) == 1 && in[input_beta].extent(0) == 1,
            "{}: gamma and beta of each sample do not exist", name());
    const int64_t C = x.extent(-1), M = C == 0 ? 0 : x.elements() / C;
    require(M > 1, "{} needs more than one value per channel, got x {}", name(), x.shape().str());
    Tensor mean({C}, x.dtype(), x.device()), variance({C}, x.dtype(), x.device());
    backend_of(x).channel_moments(x.contiguous().reshape({M, C}), mean, variance);
    const auto update = [&](Tensor& running, const Tensor& now) {
      running.copy_from(add(scale(running, 1 - momentum), scale(now, momentum)).value);
    };
    update(running_mean, mean);
    update(running_variance, scale(variance, static_cast<double>(M) / static_cast<double>(M - 1)).value);
    const Tensor rstd = rstd_of(variance);
    if (active & (1U << input_x | 1U << input_gamma)) extras = {mean, rstd};
    return evaluate(in, mean, rstd);
  }
  Tensor rstd_of(const Tensor& variance) const {
    const Tensor sd = sqrt(shift(variance, epsilon)).value;
    return divide(Tensor::full({1}, 1, sd.dtype(), sd.device()), sd).value;
  }

  // rstd and x̂ as functions of x, for a map that is itself being differentiated.
  std::pair<Variable, Variable> normalise(const Variable& x) const {
    Variable centred = x, variance;
    const auto mean_of = [&](Variable v) {
      const int64_t positions = v.shape().elements() / v.extent(-1);
      const auto M = static_cast<double>(positions);
      for (int axis = 0; axis < x.rank() - 1; axis++) v = sum(v, {axis});
      return scale(v, 1 / M);
    };
    centred = x - mean_of(x);
    variance = mean_of(square(centred));
    const Variable rstd = Variable(Tensor::full({1}, 1, x.dtype(), x.value.device())) / sqrt(shift(variance, epsilon));
    return {rstd, centred * rstd};
  }
  std::pair<Variable, Variable> at_point(const Linearisation& at) const {
    if (at.recording()) return normalise(at.input(input_x));
    const Variable rstd = at.extra(1);
    return {rstd, (at.input(input_x) - at.extra(0)) * rstd};
  }
  // The self-adjoint core applied to a (stack of) t.
  Variable core(const Linearisation& at, const Variable& t) const {
    const auto [rstd, xhat] = at_point(at);
    const int rank = at.input_shape(input_x).rank();
    const int64_t positions = at.input_shape(input_x).elements() / at.input_shape(input_x)[-1];
    const auto M = static_cast<double>(positions);
    Shape coefficient = Shape::filled(rank, 1);
    coefficient[-1] = at.input_shape(input_x)[-1];
    const auto mean_of = [&](const Variable& v) { return scale(sum_to(v, coefficient, rank), 1 / M); };
    return (t - mean_of(t) - xhat * mean_of(t * xhat)) * rstd;
  }

  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return combine(at, t, t[input_x].defined() ? core(at, t[input_x]) : Variable{},
                   t[input_gamma].defined() ? at_point(at).second : Variable{});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return at.recording() ? composed_vjp(at, c) : fused_vjp(at, c);
  }
  std::vector<Variable> composed_vjp(const Linearisation& at, const Variable& c) const {
    std::vector<Variable> out(static_cast<size_t>(at.inputs()));
    if (at.active(input_x)) out[input_x] = core(at, c * spread(at.input(input_gamma), at.input_shape(input_x)));
    if (at.active(input_gamma))
      out[input_gamma] = coefficient_cotangent(at, input_x, input_gamma, c * at_point(at).second);
    if (at.active(input_beta)) out[input_beta] = coefficient_cotangent(at, input_x, input_beta, c);
    return out;
  }
  // The same in two passes: the sums Σ c and Σ c (x − μ), then dx = γ rstd (c − Σc / M − rstd² (x − μ) Σ c (x − μ) /
  // M).
  std::vector<Variable> fused_vjp(const Linearisation& at, const Variable& c) const {
    const Shape& x_shape = at.input_shape(input_x);
    const Tensor cotangent = stacked_images(c.value, x_shape.rank());
    const int64_t K = cotangent.extent(0), C = cotangent.extent(3);
    const int64_t positions = x_shape.elements() / C;
    const auto M = static_cast<double>(positions);
    std::vector<Variable> out(static_cast<size_t>(at.inputs()));
    Tensor x, mean, rstd;
    Tensor sum_g({K, 1, C}, c.dtype(), cotangent.device()), sum_gx({K, 1, C}, c.dtype(), cotangent.device());
    const bool needs_x = at.active(input_x) || at.active(input_gamma);
    if (needs_x) x = images(at.input(input_x).value), mean = at.extra(0), rstd = at.extra(1);
    backend_of(cotangent).channel_affine_transposed({.cotangent = cotangent,
                                                     .x = needs_x ? &x : nullptr,
                                                     .mean = needs_x ? &mean : nullptr,
                                                     .sum_g = &sum_g,
                                                     .sum_gx = needs_x ? &sum_gx : nullptr});
    const Shape lead = c.shape().leading(c.rank() - x_shape.rank());
    if (at.active(input_gamma))
      out[input_gamma] = multiply(sum_gx, rstd).value.reshape(lead + at.input_shape(input_gamma));
    if (at.active(input_beta)) out[input_beta] = sum_g.reshape(lead + at.input_shape(input_beta));
    if (at.active(input_x)) {
      const Tensor a = multiply(at.input(input_gamma).value, rstd).value;
      const Tensor constant = scale(multiply(sum_g, a), -1 / M).value;
      const Tensor slope = scale(multiply(sum_gx, multiply(a, square(rstd))), -1 / M).value;
      Tensor dx(cotangent.shape(), c.dtype(), cotangent.device());
      backend_of(cotangent).channel_affine_transposed_batch({.cotangent = cotangent,
                                                             .y = nullptr,
                                                             .x = x,
                                                             .mean = mean,
                                                             .a = a,
                                                             .slope = slope,
                                                             .constant = constant,
                                                             .dx = dx});
      out[input_x] = dx.reshape(c.shape());
    }
    return out;
  }
};

}  // namespace

Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const Tensor& mean,
                         const Tensor& variance, double epsilon, const Variable& residual, bool relu) {
  const Tensor sd = sqrt(shift(variance, epsilon)).value;
  const Tensor rstd = divide(Tensor::full({1}, 1, sd.dtype(), sd.device()), sd).value;
  std::vector<Variable> inputs = {x, gamma, beta};
  if (residual.defined()) inputs.push_back(residual);
  return apply(BatchNormEval(mean.contiguous(), rstd, epsilon, relu), std::move(inputs));
}

Variable batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, Tensor running_mean,
                          Tensor running_variance, double momentum, double epsilon) {
  return apply(BatchNormTrain(std::move(running_mean), std::move(running_variance), momentum, epsilon),
               {x, gamma, beta});
}

}  // namespace fastntk
