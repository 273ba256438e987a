// Normalisation within a sample: layer norm and RMS norm over the last axis, group norm and instance norm over
// positions. All are: over a group of elements, x̂ = (x − mean) / √(variance + epsilon) with the biased variance; then
// an affine map.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// y = x̂ ⊙ γ + β with x̂ by row of the last axis. x [N, …, D]; gamma, beta [1 or N, D], or undefined for none (beta
/// needs gamma). Ba, Kiros and Hinton 2016, as torch.nn.LayerNorm over one axis.
Variable layer_norm(const Variable& x, const Variable& gamma, const Variable& beta, double epsilon);

/// y = x / √(mean x² + epsilon) ⊙ γ by row of the last axis. x [N, …, D]; gamma [1 or N, D] or undefined. Zhang and
/// Sennrich 2019, as torch.nn.RMSNorm.
Variable rms_norm(const Variable& x, const Variable& gamma, double epsilon);

/// y = x̂ ⊙ γ + β, where a group is all positions of C / groups neighbouring channels of one sample. x [N, …, C]; gamma,
/// beta [1 or N, C], or both undefined. Wu and He 2018, as torch.nn.GroupNorm.
Variable group_norm(const Variable& x, int64_t groups, const Variable& gamma, const Variable& beta, double epsilon);

/// Group norm with a group for each channel; the statistics are always the sample's own, as torch.nn.InstanceNorm2d's
/// without running statistics. x [N, …, C] with more than one position. Ulyanov, Vedaldi and Lempitsky 2016.
Variable instance_norm(const Variable& x, const Variable& gamma, const Variable& beta, double epsilon);

}  // namespace fastntk
