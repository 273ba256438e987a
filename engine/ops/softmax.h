// Softmax and its relatives, and maxima.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// Over the last axis.
Variable softmax(const Variable& x);
Variable log_softmax(const Variable& x);
/// log Σ exp over the last axis, which stays with extent 1.
Variable logsumexp(const Variable& x);
/// Maximum over one axis, which stays with extent 1. Of equal values the first has the derivative.
Variable max(const Variable& x, int axis);

}  // namespace fastntk
