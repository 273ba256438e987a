// The register-level piece of the weight gradient of a convolution, compiled once per instruction set.
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

template <class T>
struct WeightGradientKernels {
  int64_t rows;   // output channels of a register tile
  int64_t lanes;  // elements of a register

  /// tile[v - 1]: out[r, j] = sum over pixels p of dy[p, r] x[offsets[p] + j], r < rows, j < v * lanes, added to out if
  /// `add`. Each sum is one chain of multiply-adds from zero over ascending p. dy is [pixels, rows]; rows of out are
  /// `stride` apart.
  void (*tile[3])(int64_t pixels, const int64_t* offsets, const T* x, const T* dy, T* out, int64_t stride, bool add);
};

struct WeightGradientTable {
  WeightGradientKernels<float> f32;
  WeightGradientKernels<double> f64;
};

}  // namespace fastntk::cpu

FASTNTK_DECLARE_TABLE(WeightGradientTable, weight_gradient_table)
