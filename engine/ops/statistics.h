// Reductions made of sums and maxima. Axes may be negative (counted from the back); those reduced stay with extent 1.
#pragma once
#include <initializer_list>

#include "engine/op.h"

namespace fastntk {

/// Σ (x − mean)² / (n − correction) over `axes`, n elements each; correction 1 is the unbiased estimate.
Variable var(const Variable& x, std::initializer_list<int> axes, int64_t correction = 1);
/// The largest over several axes. Of equal values the first in row-major order has the derivative.
Variable max(const Variable& x, std::initializer_list<int> axes);
/// The smallest over one axis or several; ties as for max.
Variable min(const Variable& x, int axis);
Variable min(const Variable& x, std::initializer_list<int> axes);
/// log Σ exp over several axes, without overflow.
Variable logsumexp(const Variable& x, std::initializer_list<int> axes);

}  // namespace fastntk
