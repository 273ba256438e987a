// Matrix products.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// a [batch…, m, k] b [batch…, k, n] → [batch…, m, n]. Batch axes broadcast as in element-wise ops. Transposed views
/// are used as they are.
Variable matmul(const Variable& a, const Variable& b);

/// x [N, T, I] with weights [1 or N, O, I] → x wᵀ, [N, T, O]. With N weights every sample has its own.
Variable linear(const Variable& x, const Variable& weight);

}  // namespace fastntk
