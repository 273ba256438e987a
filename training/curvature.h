// The curvature of the training objective in the parameters of a subset, as products with vectors: the matrix, P × P,
// is never formed. docs/functional.md.
#pragma once
#include "datasets/samples.h"
#include "models/peft.h"
#include "training/loss.h"

namespace fastntk {

/// ∇²(Σ ℓ) v at the model's parameters, in eval mode, for v [P], or [K, P] for K at once: the jvp of the recorded vjp.
/// Float64, of v's shape. Samples go through in fixed tiles that are added in order, so that the bits do not depend on
/// the number of threads. A model that is not twice differentiable has the second derivative of the piece it is on:
/// that of relu is zero.
Tensor hvp(const Module& model, const Subset& subset, const Samples& samples, const Loss& loss, const Tensor& v,
           double label_smoothing = 0);

/// Σ Jᵢᵀ Λᵢ Jᵢ v with Λᵢ = ∂²ℓ/∂f² at the logits of sample i: the generalised Gauss-Newton matrix (for cross-entropy
/// the Fisher information) times v. Otherwise as hvp; only the loss is differentiated twice.
Tensor ggn_vp(const Module& model, const Subset& subset, const Samples& samples, const Loss& loss, const Tensor& v,
              double label_smoothing = 0);

}  // namespace fastntk
