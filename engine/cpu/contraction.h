// Products of batches of matrices on the CPU; contract in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

/// Each element is a sum in the fixed order of engine/cpu/gemm.h, whatever the batch and the strides.
void gemm(const Tensor& a, const Tensor& b, Tensor& out, bool keep_b);

}  // namespace fastntk::cpu
