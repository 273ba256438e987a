// The kernels of layer norm and RMS norm on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void row_norm(const Backend::RowNorm& arguments);
void row_norm_core(const Backend::RowNormCore& arguments);
void row_norm_sums(const Backend::RowNormSums& arguments);

}  // namespace fastntk::cpu
