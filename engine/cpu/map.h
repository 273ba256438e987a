// Element-wise kernels on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void copy(const Tensor& source, Tensor& out);
void fill(Tensor& out, double value);
void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out);
void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out);
int64_t first_non_finite(const Tensor& x);

}  // namespace fastntk::cpu
