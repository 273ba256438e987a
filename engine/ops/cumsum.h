// Running sums.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// y_i = Σ_{j ≤ i} x_j along one axis; with `reverse` Σ_{j ≥ i} x_j, which is the transpose. Summed in float64, in
/// order.
Variable cumsum(const Variable& x, int axis, bool reverse = false);

}  // namespace fastntk
