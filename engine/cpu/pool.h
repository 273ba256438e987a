// Pooling on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

/// A maximum that meets a NaN is NaN.
void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where);
void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx);

}  // namespace fastntk::cpu
