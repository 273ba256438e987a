// Fast-NTK: the closed-form update of the tuned parameters that forgets D_f (arXiv 2312.14923, restricted to a PEFT
// subset; docs/mathematics.md derives every rule). θ* was fine-tuned from θ0 on D = D_r ∪ D_f with ½ρ‖θ − θ0‖² added to
// the summed loss.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "unlearn/phase.h"
#include "unlearn/rows.h"

namespace fastntk {

/// A closed-form rule as on the command line:
///   shift            θ* + θ_lin(D_r) − θ_lin(D), squared residual y − f
///   solve            θ_lin(D_r)
///   golatkar         as shift, with the residual at θ* in place of θ0 (Golatkar et al. 2020)
///   golatkar-scaled  golatkar times their trapezium scale 1 + 2|c|‖e‖/‖δ‖
///   residual         as shift, with the residual −∂ℓ/∂f, and the identity as Hessian
///   newton-solve     θ_newton(D_r), the optimum of the linearised model under the loss itself
///   newton-shift     θ* + θ_newton(D_r) − θ_newton(D)
/// The last three are for losses with curvature; with cross-entropy −∂ℓ/∂f is onehot − softmax(f).
std::vector<std::string> closed_form_rules(const std::string& loss);
/// UsageError that lists them unless `rule` is one of them.
void check_rule(const std::string& rule, const std::string& loss);

/// One step of a Newton iteration.
struct NewtonStep {
  double objective = 0, gradient_norm = 0, step_length = 0;
};

struct Update {
  std::string rule;
  Tensor theta;  ///< [P] float64
  double scale = 1;
  std::vector<SolveReport> solves;
  std::vector<NewtonStep> newton;  ///< of the last Newton iteration
  /// What the rule rests on, and the rule itself. A part that an earlier rule made is listed with what it cost then, so
  /// that the sum is what this rule takes alone.
  std::vector<Phase> phases;
};

/// All rules for one forget set. Gram matrices, factors and linearised optima are made once and shared between the
/// rules; those of D also between requests (for_request). P ≤ |S|·C decides between primal and dual for each set unless
/// `representation` says otherwise (newton is primal).
class FastNtk {
 public:
  /// `set` is D linearised at θ*; `forget` are positions in it, ascending. theta0, theta_star [P] float64; ridges ρ > 0
  /// on D and on D_r: equal (the `sum` convention, ρ fixed when samples leave), or nλ and n_r λ (`mean`). Error when
  /// the retain set would be empty.
  FastNtk(const LinearisedSet& set, Positions forget, Tensor theta0, Tensor theta_star, const Loss& loss, double ridge,
          double retain_ridge, Representation representation = Representation::automatic);

  /// Another request on the same D: what has been or will be computed from all of D is shared with this one.
  FastNtk for_request(Positions forget, double retain_ridge) const;

  /// θ after forgetting. With D_f = ∅ every shift is exactly zero.
  Update update(const std::string& rule);
  /// Δ of `shift` in the one-shot form −P_r J_fᵀ M V of the paper, by dual systems, ρ equal on both sides; for
  /// cross-checks.
  Tensor one_shot_delta();

  const Positions& forget() const { return forget_; }
  const Positions& retain() const { return retain_; }

 private:
  enum class Residual : uint8_t { squared, loss };
  struct NewtonOptimum {
    Tensor theta;
    std::vector<SolveReport> solves;
    std::vector<NewtonStep> steps;
  };
  // What is computed once for a set S (D or D_r), each with the phase in which it was.
  struct Parts {
    std::optional<RidgeSystem> system;
    std::optional<NewtonOptimum> newton;
    Phase system_phase, newton_phase;
  };

  RidgeSystem& system_of(Parts& parts, const Positions& s, double ridge, const char* name, Update& out);
  const NewtonOptimum& newton_of(Parts& parts, const Positions& s, double ridge, const Tensor& start, const char* name,
                                 Update& out);
  RidgeSystem& full_system(Update& out) { return system_of(*on_all_, all_, ridge_, "D", out); }
  RidgeSystem& retain_system(Update& out) { return system_of(on_retain_, retain_, retain_ridge_, "D_r", out); }
  NewtonOptimum newton(const Positions& s, double ridge, const Tensor& start, const char* name) const;

  Tensor residuals(const Positions& s, Residual kind, bool from_theta0) const;
  void shift(Residual kind, bool from_theta0, Update& out);
  void solve(Update& out);
  void golatkar_scaled(Update& out);
  void newton_rule(bool shifted, Update& out);

  const LinearisedSet& set_;
  Positions forget_, retain_, all_;
  Tensor theta0_, theta_star_;
  const Loss& loss_;
  double ridge_, retain_ridge_;
  Representation representation_;
  std::shared_ptr<Parts> on_all_ = std::make_shared<Parts>();
  Parts on_retain_;
};

}  // namespace fastntk
