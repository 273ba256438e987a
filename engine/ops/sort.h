// Orders and places of extremes. They are piecewise constant, so they have no derivative and refuse inputs that are on
// a tape; to differentiate the values picked, pick them with gather(x, axis, indices).
#pragma once
#include "engine/op.h"

namespace fastntk {

/// Values, and where they came from along the axis (int64).
struct Sorted {
  Tensor values, indices;
};

/// Any element type. Equal elements keep their order (stable). A NaN counts as greater than every number: last when
/// ascending, first when descending.
Sorted sort(const Variable& x, int axis = -1, bool descending = false);
/// The k largest (or smallest) along an axis, in descending (ascending) order; the first k of `sort`.
Sorted topk(const Variable& x, int64_t k, int axis = -1, bool largest = true);
/// Where the largest (smallest) element of an axis is, int64; the axis stays with extent 1, so that gather takes the
/// result as it is. The first of equal ones; the first NaN if there is one.
Tensor argmax(const Variable& x, int axis = -1);
Tensor argmin(const Variable& x, int axis = -1);

}  // namespace fastntk
