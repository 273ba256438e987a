// Element-by-element ops that choose: between two values, or between a value and a bound. They broadcast like those of
// engine/ops/elementwise.h.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// The larger of two; NaN where either is. Of equal values each has half the derivative, as in torch.
Variable maximum(const Variable& a, const Variable& b);
/// The smaller of two; NaN where either is. Of equal values each has half the derivative, as in torch.
Variable minimum(const Variable& a, const Variable& b);
/// a where `mask` is not zero, else b, whatever the other is there (NaN included). The mask may be of any type.
Variable where(const Tensor& mask, const Variable& a, const Variable& b);
/// min(max(x, low), high), low ≤ high; bounds may be infinite. The derivative is 1 at the bounds, as in torch.
Variable clamp(const Variable& x, double low, double high);
/// |x|, with derivative 0 at 0.
Variable abs(const Variable& x);

}  // namespace fastntk
