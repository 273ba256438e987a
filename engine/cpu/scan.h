// Running sums and orders along an axis on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out);
void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index);

}  // namespace fastntk::cpu
