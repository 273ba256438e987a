// Picking by index and its transpose on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out);
void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out);

}  // namespace fastntk::cpu
