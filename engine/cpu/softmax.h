// Softmax of rows on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out);
void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out);

}  // namespace fastntk::cpu
