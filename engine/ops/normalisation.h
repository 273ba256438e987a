// Batch normalisation, with the ReLU and the residual sum that follow it in a ResNet.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// Eval mode: y = x̂ ⊙ γ + β (+ residual), then max(0, ·) if `relu`, where x̂ = (x − mean) / √(variance + epsilon) by
/// channel. x, residual [N, …, C]; gamma, beta [1 or N, C]; mean, variance [C] are constants of the linear map. One
/// pass over memory each way.
Variable batch_norm_eval(const Variable& x, const Variable& gamma, const Variable& beta, const Tensor& mean,
                         const Tensor& variance, double epsilon, const Variable& residual = {}, bool relu = false);

/// Train mode: x̂ from the mean and (biased) variance of this batch, which are functions of x. Then
/// running ← (1 − momentum) running + momentum · batch (variance unbiased there), as in torch.nn.BatchNorm2d. gamma,
/// beta [1, C]. The map mixes samples, so per-sample derivatives are refused.
Variable batch_norm_train(const Variable& x, const Variable& gamma, const Variable& beta, Tensor running_mean,
                          Tensor running_variance, double momentum, double epsilon);

}  // namespace fastntk
