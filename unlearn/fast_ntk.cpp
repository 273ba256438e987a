#include "unlearn/fast_ntk.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "unlearn/metrics.h"

namespace fastntk {
namespace {

constexpr double newton_tolerance = 1e-9;  // of the gradient norm, relative to its value at θ0 or at the start
constexpr int newton_limit = 60;
constexpr double armijo = 1e-4;

}  // namespace

std::vector<std::string> closed_form_rules(const std::string& loss) {
  std::vector<std::string> rules = {"shift", "solve", "golatkar", "golatkar-scaled"};
  if (find_loss(loss).curvature_factor) rules.insert(rules.end(), {"residual", "newton-solve", "newton-shift"});
  return rules;
}

void check_rule(const std::string& rule, const std::string& loss) {
  const auto rules = closed_form_rules(loss);
  require_usage(std::find(rules.begin(), rules.end(), rule) != rules.end(),
                "there is no update rule '{}' for the loss {}; there are {}", rule, loss, fmt::join(rules, ", "));
}

FastNtk::FastNtk(const LinearisedSet& set, Positions forget, Tensor theta0, Tensor theta_star, const Loss& loss,
                 double ridge, double retain_ridge, Representation representation)
    : set_(set),
      forget_(std::move(forget)),
      retain_(complement(forget_, set.size())),
      all_(all_positions(set.size())),
      theta0_(std::move(theta0)),
      theta_star_(std::move(theta_star)),
      loss_(loss),
      ridge_(ridge),
      retain_ridge_(retain_ridge),
      representation_(representation) {
  if (set.products)
    require(set.logits.shape() == Shape({set.size(), set.products->classes()}) && set.products->samples() == set.size(),
            "a linearised set of {} samples with logits {} and products of {} samples", set.size(),
            set.logits.shape().str(), set.products->samples());
  else
    require(set.rows.rank() == 3 && set.logits.rank() == 2 && set.rows.extent(0) == set.size() &&
                set.logits.extent(0) == set.size() && set.rows.extent(1) == set.classes(),
            "a linearised set needs rows [n, C, P], logits [n, C] and labels [n], got {}, {} and {}",
            set.rows.shape().str(), set.logits.shape().str(), set.labels.shape().str());
  require(retain_.size() + forget_.size() == all_.size(),
          "the forget set must be ascending positions in a set of {} samples", set.size());
  require_usage(!retain_.empty(),
                "nothing would be left: all {} samples are to be forgotten, so there is no retain set to solve for",
                set.size());
  require(theta0_.shape() == Shape{set.parameters()} && theta_star_.shape() == theta0_.shape(),
          "θ0 {} and θ* {} for {} parameters", theta0_.shape().str(), theta_star_.shape().str(), set.parameters());
  for (const double r : {ridge, retain_ridge})
    require(r > 0 && std::isfinite(r), "the ridge ρ must be positive and finite, got {}", r);
}

// y − f, or −∂ℓ/∂f, at θ*; moved to θ0 by the linear model where asked for.
Tensor FastNtk::residuals(const Positions& s, Residual kind, bool from_theta0) const {
  const Tensor logits = set_.logits.to(DType::float64).contiguous();
  Tensor r = kind == Residual::squared
                 ? residuals_of(set_, s, logits.to_vector<double>())
                 : residuals_at(loss_, gather_rows(logits, s), gather_rows(set_.labels, s).to_vector<int64_t>());
  if (!from_theta0) return r;
  return combine(r, -1, rows_times(set_, s, combine(theta0_, -1, theta_star_)));
}

FastNtk FastNtk::for_request(Positions forget, double retain_ridge) const {
  FastNtk other(set_, std::move(forget), theta0_, theta_star_, loss_, ridge_, retain_ridge, representation_);
  other.on_all_ = on_all_;
  return other;
}

RidgeSystem& FastNtk::system_of(Parts& parts, const Positions& s, double ridge, const char* name, Update& out) {
  if (!parts.system)
    parts.system_phase =
        measure(fmt::format("factor {}", name), [&] { parts.system.emplace(set_, s, ridge, representation_, name); });
  out.phases.push_back(parts.system_phase);
  return *parts.system;
}

const FastNtk::NewtonOptimum& FastNtk::newton_of(Parts& parts, const Positions& s, double ridge, const Tensor& start,
                                                 const char* name, Update& out) {
  if (!parts.newton)
    parts.newton_phase = measure(fmt::format("newton {}", name), [&] { parts.newton = newton(s, ridge, start, name); });
  out.phases.push_back(parts.newton_phase);
  out.solves.insert(out.solves.end(), parts.newton->solves.begin(), parts.newton->solves.end());
  out.newton = parts.newton->steps;
  return *parts.newton;
}

void FastNtk::shift(Residual kind, bool from_theta0, Update& out) {
  RidgeSystem &after = retain_system(out), &before = full_system(out);
  out.phases.push_back(measure("solve", [&] {
    const Tensor end = after.solve_rows(residuals(retain_, kind, from_theta0));
    const Tensor start = before.solve_rows(residuals(all_, kind, from_theta0));
    out.theta = combine(theta_star_, 1, combine(end, -1, start));
  }));
  out.solves = {after.report(), before.report()};
}

void FastNtk::solve(Update& out) {
  RidgeSystem& system = retain_system(out);
  out.phases.push_back(measure("solve", [&] {
    out.theta = combine(theta0_, 1, system.solve_rows(residuals(retain_, Residual::squared, true)));
  }));
  out.solves = {system.report()};
}

// Golatkar et al., "Forgetting outside the box", ECCV 2020, the scale of their appendix.
void FastNtk::golatkar_scaled(Update& out) {
  shift(Residual::squared, false, out);
  out.phases.push_back(measure("scale", [&] {
    const Tensor delta = combine(out.theta, -1, theta_star_);
    const Tensor e = combine(combine(theta_star_, -1, theta0_), -1,
                             on_retain_.system->solve_rows(residuals(retain_, Residual::squared, false)));
    const double c = cosine(delta.to_vector<double>(), e.to_vector<double>()), length = norm(delta);
    out.scale = length > 0 ? 1 + 2 * std::abs(c) * norm(e) / length : 1;
    out.theta = combine(theta_star_, out.scale, delta);
  }));
}

void FastNtk::newton_rule(bool shifted, Update& out) {
  const Tensor full = newton_of(*on_all_, all_, ridge_, theta_star_, "D", out).theta;
  const Tensor retain = newton_of(on_retain_, retain_, retain_ridge_, full, "D_r", out).theta;
  out.theta = shifted ? combine(theta_star_, 1, combine(retain, -1, full)) : retain.clone();
}

// The minimum over θ of Σ_S ℓ(f_lin(θ)) + ½ρ‖θ − θ0‖²: convex, by Newton's method with backtracking.
FastNtk::NewtonOptimum FastNtk::newton(const Positions& s, double ridge, const Tensor& start, const char* name) const {
  const int64_t C = set_.classes(), n = static_cast<int64_t>(s.size());
  const auto labels = set_.labels.to_vector<int64_t>();
  const Tensor all_logits = set_.logits.to(DType::float64).contiguous();
  Tensor f_star({n, C}, DType::float64);
  for (int64_t i = 0; i < n; i++) f_star.select(0, i).copy_from(all_logits.select(0, s[static_cast<size_t>(i)]));

  const auto logits_at = [&](const Tensor& theta) {
    return combine(f_star, 1, rows_times(set_, s, combine(theta, -1, theta_star_)));
  };
  const auto objective_at = [&](const Tensor& theta, const Tensor& f) {
    const double* const p = f.data<double>();
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
      sum += loss_.value(p + i * C, C, labels[static_cast<size_t>(s[static_cast<size_t>(i)])]);
    const double away = norm(combine(theta, -1, theta0_));
    return sum + 0.5 * ridge * away * away;
  };
  const auto gradient_at = [&](const Tensor& theta, const Tensor& f) {
    Tensor g({n, C}, DType::float64);
    for (int64_t i = 0; i < n; i++)
      loss_.gradient(f.data<double>() + i * C, C, labels[static_cast<size_t>(s[static_cast<size_t>(i)])],
                     g.mutable_data<double>() + i * C);
    return combine(transposed_rows_times(set_, s, g), ridge, combine(theta, -1, theta0_));
  };

  Tensor theta = start.clone(), f = logits_at(theta);
  double value = objective_at(theta, f);
  NewtonOptimum out;
  const double scale = norm(gradient_at(theta0_, logits_at(theta0_)));
  for (int k = 0; k < newton_limit; k++) {
    const Tensor gradient = gradient_at(theta, f);
    const double length = norm(gradient);
    NewtonStep step{.objective = value, .gradient_norm = length};
    if (length <= newton_tolerance * scale) {
      out.steps.push_back(step);
      out.theta = theta;
      return out;
    }
    RidgeSystem system(weighted_gram(set_, s, loss_, f), ridge, fmt::format("{} newton {}", name, k + 1));
    const Tensor direction = system.solve(gradient);
    out.solves.push_back(system.report());
    double slope = 0;
    for (int64_t i = 0; i < direction.elements(); i++)
      slope += direction.data<double>()[i] * gradient.data<double>()[i];
    double t = 1;
    for (;; t /= 2) {
      const Tensor next = combine(theta, -t, direction), next_f = logits_at(next);
      const double next_value = objective_at(next, next_f);
      // At the bottom the decrease drowns in rounding; a full step there is still the right one.
      if (next_value <= value - armijo * t * slope || slope <= 1e-13 * std::abs(value)) {
        theta = next, f = next_f, value = next_value;
        break;
      }
      require(t > 1e-10, "Newton's method on {} found no step that lowers the objective {} at gradient norm {}", name,
              value, length);
    }
    step.step_length = t;
    out.steps.push_back(step);
  }
  fail("Newton's method on {} did not reach a gradient norm of {} times its start in {} steps", name, newton_tolerance,
       newton_limit);
}

Update FastNtk::update(const std::string& rule) {
  check_rule(rule, loss_.name);
  Update out{.rule = rule, .theta = theta_star_.clone()};
  const bool goes_to_an_optimum = rule == "solve" || rule == "newton-solve";
  if (forget_.empty() && !goes_to_an_optimum) return out;  // θ* to the bit
  if (rule == "shift") shift(Residual::squared, true, out);
  if (rule == "residual") shift(Residual::loss, true, out);
  if (rule == "golatkar") shift(Residual::squared, false, out);
  if (rule == "golatkar-scaled") golatkar_scaled(out);
  if (rule == "solve") solve(out);
  if (rule == "newton-solve" || rule == "newton-shift") newton_rule(rule == "newton-shift", out);
  return out;
}

// Δ = −P_r J_fᵀ M V with P_r = I − J_rᵀ(Θ_rr+ρI)⁻¹J_r, M = (Θ_ff + ρI − Θ_fr(Θ_rr+ρI)⁻¹Θ_rf)⁻¹, V = r_f −
// Θ_fr(Θ_rr+ρI)⁻¹r_r.
Tensor FastNtk::one_shot_delta() {
  if (forget_.empty()) return Tensor::zeros(theta0_.shape(), DType::float64);
  RidgeSystem dual(set_, retain_, ridge_, Representation::dual, "D_r dual");
  const int64_t C = set_.classes(), m = static_cast<int64_t>(forget_.size()) * C;
  const auto project = [&](const Tensor& v) {
    return combine(v, -1, dual.solve_rows(rows_times(set_, retain_, v)));
  };  // P_r v
  // Schur complement S = Θ_ff − Θ_fr(Θ_rr+ρI)⁻¹Θ_rf = J_f P_r J_fᵀ, a column per forgotten row.
  Tensor schur({m, m}, DType::float64);
  for (int64_t k = 0; k < m; k++) {
    Tensor unit = Tensor::zeros({static_cast<int64_t>(forget_.size()), C}, DType::float64);
    unit.mutable_data<double>()[k] = 1;
    schur.select(1, k).copy_from(
        rows_times(set_, forget_, project(transposed_rows_times(set_, forget_, unit))).reshape({m}));
  }
  const Tensor v = combine(residuals(forget_, Residual::squared, true), -1,
                           rows_times(set_, forget_, dual.solve_rows(residuals(retain_, Residual::squared, true))));
  const Cholesky inverse(SymmetricMatrix::from(schur), ridge_);
  const Tensor mv = inverse.solve(v.reshape({m}));
  return combine(Tensor::zeros(theta0_.shape(), DType::float64), -1, project(transposed_rows_times(set_, forget_, mv)));
}

}  // namespace fastntk
