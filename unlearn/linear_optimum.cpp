#include "unlearn/linear_optimum.h"

#include <algorithm>
#include <cmath>

#include "unlearn/metrics.h"
#include "unlearn/weighted_rows.h"

namespace fastntk {
namespace {

constexpr int step_limit = 60, conjugate_gradient_limit = 200;
constexpr double armijo = 1e-4, rounding = 1e-13;

double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.elements(); i++) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

class Minimisation {
 public:
  Minimisation(const LinearisedObjective& objective, const Positions& present, const LinearOperator& inverse)
      : o_(objective), present_(present), inverse_(inverse), star_(gather_rows(o_.logits, present).contiguous()) {
    for (const int64_t i : present) labels_.push_back(o_.labels[static_cast<size_t>(i)]);
  }

  struct Point {
    Tensor theta, logits;  // logits of the linear model, [|S|, C]
    Tensor gradient;
    double value = 0, gradient_norm = 0, floor = 0;
  };

  // One pass.
  Point at(const Tensor& theta) {
    const int64_t C = o_.rows.classes();
    Point p{.theta = theta, .logits = Tensor(star_.shape(), DType::float64)};
    double* const f = p.logits.mutable_data<double>();
    const Tensor sum =
        o_.rows.sum(present_, combine(theta, -1, o_.theta_star), [&](int64_t k, const double* u, double* w) {
          for (int64_t c = 0; c < C; c++) f[k * C + c] = star_.data<double>()[k * C + c] + u[c];
          o_.loss.gradient(f + k * C, C, labels_[static_cast<size_t>(k)], w);
        });
    passes++;
    const Tensor away = combine(theta, -1, o_.theta0);
    p.gradient = combine(sum, o_.ridge, away);
    p.value = value_of(p.logits, away);
    p.gradient_norm = norm(p.gradient);
    p.floor = rounding * (norm(sum) + o_.ridge * norm(away));
    return p;
  }

  Point chord(const Point& p) { return at(combine(p.theta, -1, inverse_(p.gradient))); }

  Point newton(const Point& p, double forcing) {
    const auto [direction, change] = conjugate_gradients(p, forcing);
    const double slope = dot(direction, p.gradient);
    for (double t = 1;; t /= 2) {
      const Tensor theta = combine(p.theta, t, direction);
      const double value = value_of(combine(p.logits, t, change), combine(theta, -1, o_.theta0));
      // At the bottom the decrease drowns in rounding; a full step there is still the right one.
      if (value <= p.value + armijo * t * slope || -slope <= 1e-13 * std::abs(p.value)) return at(theta);
      require(t > 1e-10, "Newton's method found no step that lowers the objective {} at gradient norm {}", p.value,
              p.gradient_norm);
    }
  }

  int passes = 0;

 private:
  double value_of(const Tensor& logits, const Tensor& away) const {
    const int64_t C = logits.extent(1);
    double sum = 0;
    for (int64_t k = 0; k < logits.extent(0); k++)
      sum += o_.loss.value(logits.data<double>() + k * C, C, labels_[static_cast<size_t>(k)]);
    return sum + 0.5 * o_.ridge * dot(away, away);
  }

  struct Direction {
    Tensor direction, change;  // d and J d
  };
  // H d = −g to a residual of `forcing` · ‖g‖. Each product's J v is kept, so that J d needs no pass of its own.
  Direction conjugate_gradients(const Point& p, double forcing) {
    const int64_t C = o_.rows.classes(), n = static_cast<int64_t>(present_.size());
    Tensor factors({n, C, C}, DType::float64);
    for (int64_t k = 0; k < n; k++)
      o_.loss.curvature_factor(p.logits.data<double>() + k * C, C, labels_[static_cast<size_t>(k)],
                               factors.mutable_data<double>() + k * C * C);
    Tensor x = Tensor::zeros(p.theta.shape(), DType::float64), change = Tensor::zeros(p.logits.shape(), DType::float64);
    Tensor residual = combine(x, -1, p.gradient);
    Tensor z = inverse_(residual), direction = z;
    double rz = dot(residual, z);
    for (int k = 0; k < conjugate_gradient_limit && norm(residual) > forcing * p.gradient_norm; k++) {
      Tensor along(p.logits.shape(), DType::float64);
      const Tensor product = combine(curved(factors, direction, along), o_.ridge, direction);
      const double step = rz / dot(direction, product);
      x = combine(x, step, direction), change = combine(change, step, along);
      residual = combine(residual, -step, product);
      z = inverse_(residual);
      const double next = dot(residual, z);
      direction = combine(z, next / rz, direction);
      rz = next;
    }
    return {x, change};
  }

  // Σ JᵢᵀΛᵢJᵢ v with Λᵢ = Sᵢ Sᵢᵀ; J v goes to `along`. One pass.
  Tensor curved(const Tensor& factors, const Tensor& v, Tensor& along) {
    const int64_t C = o_.rows.classes();
    double* const jv = along.mutable_data<double>();
    passes++;
    return o_.rows.sum(present_, v, [&](int64_t k, const double* u, double* w) {
      const double* const s = factors.data<double>() + k * C * C;
      std::copy_n(u, C, jv + k * C);
      std::fill_n(w, C, 0.0);
      for (int64_t b = 0; b < C; b++) {
        double t = 0;
        for (int64_t a = 0; a < C; a++) t += s[a * C + b] * u[a];
        for (int64_t a = 0; a < C; a++) w[a] += s[a * C + b] * t;
      }
    });
  }

  const LinearisedObjective& o_;
  const Positions& present_;
  const LinearOperator& inverse_;
  Tensor star_;
  std::vector<int64_t> labels_;
};

// Σ JᵢᵀΛᵢJᵢ over all samples, Λᵢ at these logits [n, C] of the linear model. One pass.
SymmetricMatrix curvature_at(const LinearisedObjective& o, const Tensor& logits) {
  GramAccumulator gram(o.rows.parameters(), 0);
  o.rows.for_each(all_positions(logits.extent(0)), [&](const Positions& part, const Tensor& rows) {
    std::vector<int64_t> labels;
    for (const int64_t i : part) labels.push_back(o.labels[static_cast<size_t>(i)]);
    gram.add(weighted_rows(rows, gather_rows(logits, part), labels, o.loss));
  });
  return std::move(gram).finish().matrix;
}

}  // namespace

LinearOptimum linear_optimum(const LinearisedObjective& objective, const Positions& present, const Tensor& start,
                             const LinearOperator& inverse, const OptimumTolerance& tolerance) {
  require(objective.loss.curvature_factor != nullptr,
          "the loss {} is quadratic: its optimum is a linear system's solution", objective.loss.name);
  Minimisation m(objective, present, inverse);
  Minimisation::Point p = m.at(start);
  LinearOptimum out{.start_gradient_norm = p.gradient_norm};
  const auto reached = [&] {
    const double away = objective.ridge * norm(combine(p.theta, -1, objective.theta0));
    return p.gradient_norm <=
           std::max(p.floor, std::min(tolerance.relative * out.start_gradient_norm, tolerance.distance * away));
  };
  bool chords = true;
  while (!reached()) {
    require(
        out.chord_steps + out.newton_steps < step_limit,
        "the optimum of the linearised model was not reached in {} steps: the gradient's norm is {:.2e}, at the start "
        "it was {:.2e}",
        step_limit, p.gradient_norm, out.start_gradient_norm);
    if (chords) {
      Minimisation::Point next = m.chord(p);
      chords = next.gradient_norm <= 0.25 * p.gradient_norm;
      // A convex function's gradient cannot mislead near the optimum; far from it the value decides.
      if (!chords && !(next.value < p.value)) continue;
      out.chord_steps++;
      p = std::move(next);
    } else {
      const double fallen = p.gradient_norm / out.start_gradient_norm;
      p = m.newton(p, std::clamp(fallen, 1e-4, 0.1));
      out.newton_steps++;
    }
  }
  out.theta = p.theta, out.logits = p.logits, out.gradient = p.gradient, out.objective = p.value,
  out.gradient_norm = p.gradient_norm, out.passes = m.passes;
  out.distance_bound = p.gradient_norm / (objective.ridge * norm(combine(p.theta, -1, objective.theta0)));
  return out;
}

NormalEquations normal_equations_at_optimum(const LinearisedObjective& o) {
  const Positions all = all_positions(o.logits.extent(0));
  const LinearOptimum best = [&] {
    const Cholesky factor(curvature_at(o, o.logits), o.ridge);
    return linear_optimum(o, all, o.theta_star, [&](const Tensor& x) { return factor.solve(x); },
                          {.relative = 1e-12, .distance = 1e-12});
  }();
  return {.reference = best.theta,
          .logits = best.logits,
          .matrix = curvature_at(o, best.logits),
          .right_hand_side = combine(Tensor::zeros(best.gradient.shape(), DType::float64), -1, best.gradient)};
}

}  // namespace fastntk
