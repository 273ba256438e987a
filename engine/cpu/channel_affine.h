// Batch normalisation's kernels on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void channel_affine(const Backend::ChannelAffine& arguments);
void channel_affine_transposed(const Backend::ChannelAffineTransposed& arguments);
void channel_affine_transposed_batch(const Backend::ChannelAffineTransposedBatch& arguments);
void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance);

}  // namespace fastntk::cpu
