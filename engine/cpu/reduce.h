// Reductions on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

/// Sums of float32 are accumulated in double, in a fixed order.
void reduce(ReduceKind kind, const Tensor& x, Tensor& out);

}  // namespace fastntk::cpu
