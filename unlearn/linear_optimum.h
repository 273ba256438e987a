// The optimum of the linearised model under a loss with curvature, from rows that stay in a file: Newton's method with
// conjugate gradients, preconditioned by a factor that was made elsewhere. The network is not run.
#pragma once
#include "training/loss.h"
#include "unlearn/row_file.h"

namespace fastntk {

/// F(θ) = Σ_S ℓ(f(xᵢ; θ*) + Jᵢ(θ − θ*), yᵢ) + ½ρ‖θ − θ0‖², convex.
struct LinearisedObjective {
  const RowFile& rows;
  const Loss& loss;
  Tensor logits;                ///< f(x; θ*) [n, C] float64, by position
  std::vector<int64_t> labels;  ///< [n]
  Tensor theta0, theta_star;    ///< [P] float64
  double ridge = 0;             ///< ρ
};

struct LinearOptimum {
  Tensor theta;     ///< [P] float64
  Tensor logits;    ///< of the linear model at theta, [|S|, C]
  Tensor gradient;  ///< ∇F [P]
  double objective = 0;
  double gradient_norm = 0, start_gradient_norm = 0;
  /// At most this far from the optimum: ‖∇F‖/ρ, because F is ρ-convex; over ‖θ − θ0‖.
  double distance_bound = 0;
  int chord_steps = 0, newton_steps = 0;
  int passes = 0;  ///< over the rows
};

/// How far the gradient's norm must fall: to `relative` of its value at the start, and to `distance` · ρ‖θ − θ0‖, which
/// bounds the distance from the optimum; or to where rounding ends it, 1e-13 of the sum of its two parts' norms.
struct OptimumTolerance {
  double relative = 1e-8, distance = 1e-9;
};

/// The minimum over the samples at `present`, from `start`. `inverse` is about the inverse of the Hessian
/// H = Σ JᵢᵀΛᵢJᵢ + ρI (symmetric, positive definite). First chord steps, −inverse(∇F), one pass each, as long as they
/// quarter the gradient; then Newton steps with line search, their systems solved by conjugate gradients preconditioned
/// by `inverse`, one pass for each product. Error when 60 steps do not reach the tolerance.
LinearOptimum linear_optimum(const LinearisedObjective& objective, const Positions& present, const Tensor& start,
                             const LinearOperator& inverse, const OptimumTolerance& tolerance = {});

/// F without its constant to second order about `reference`: (A + ρI) x = b gives the step to its optimum.
struct NormalEquations {
  Tensor reference;           ///< θ [P]
  Tensor logits;              ///< of the linear model there, [n, C]
  SymmetricMatrix matrix{0};  ///< A = Σ JᵢᵀΛᵢJᵢ
  Tensor right_hand_side;     ///< b = −∇F [P]
};
/// Those at the optimum over all samples, which is looked for from θ*: b is zero to rounding.
NormalEquations normal_equations_at_optimum(const LinearisedObjective& objective);

}  // namespace fastntk
