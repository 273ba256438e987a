// Rows weighted by a loss's curvature, of which the Gram matrix is that of the linearised problem.
#pragma once
#include <span>

#include "engine/tensor.h"
#include "training/loss.h"

namespace fastntk {

/// Rows √Λᵢ Jᵢ = Sᵢᵀ Jᵢ [n, C, P] float64 for rows J [n, C, P], with Λᵢ = Sᵢ Sᵢᵀ = ∂²ℓ/∂f² at the logits [n, C]
/// float64; the rows themselves where the loss is quadratic.
Tensor weighted_rows(const Tensor& rows, const Tensor& logits, std::span<const int64_t> labels, const Loss& loss);

}  // namespace fastntk
