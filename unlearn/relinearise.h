// Damped Gauss–Newton on the retain set: the linearisation is taken again at the present parameters, and a step is kept
// only if the true objective falls. It tends to the optimum of retraining itself.
#pragma once
#include <string>
#include <vector>

#include "unlearn/jacobian.h"
#include "unlearn/rows.h"

namespace fastntk {

/// One linearisation and the steps tried from it.
struct RelineariseStep {
  double objective_before = 0, objective_after = 0;  ///< Σ_{D_r} ℓ + ½ρ‖θ − θ0‖²
  double gradient_norm_before = 0;
  double damping = 0;  ///< μ of the accepted step
  int rejected = 0;    ///< steps refused before it
  bool accepted = false;
  SolveReport solve;
};

/// k times: J and f on D_r at θ; minimise the quadratic model with μ‖θ' − θ‖²/2 added, curvature Λ of the loss; accept
/// if the true objective falls, else raise μ fourfold. μ starts at 0: the rule needs no setting. θ is that of `model`,
/// which is left at the result. theta0 [P] float64; ridge ρ.
std::vector<RelineariseStep> relinearise(Module& model, const Subset& subset, const Samples& retain, const Loss& loss,
                                         double ridge, const Tensor& theta0, int k, const JacobianOptions& options);

/// ‖f(θ) − f_lin(θ)‖ / ‖J(θ − θ*)‖ on some inputs: how far the linear model errs, relative to what it predicts.
/// `at_star` is f and J(θ − θ*) at θ* (one JVP), `logits` are f(θ). 0 when θ = θ*, i.e. when the prediction is zero and
/// true.
double linearisation_error(const DirectionalDerivative& at_star, const Tensor& logits);

}  // namespace fastntk
