// Inner loops of depthwise convolution, one table per instruction set.
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

/// A row or column of taps: where it lies in the image and in the weights, in elements.
struct DepthwiseTap {
  int64_t image, weight;
};

template <class T>
struct DepthwiseKernels {
  /// y[c] = Σ over rows and columns of x[row.image + column.image + c] · w[row.weight + column.weight + c], c <
  /// channels: one chain of multiply-adds, rows first.
  void (*sum)(int64_t rows, const DepthwiseTap* row, int64_t columns, const DepthwiseTap* column, int64_t channels,
              const T* x, const T* w, T* y);
  /// sum[c] += Σ_{v < pixels} x[v · x_step + c] · dy[v · dy_step + c], c < channels: one chain in ascending order of v.
  void (*dot)(int64_t pixels, const T* x, int64_t x_step, const T* dy, int64_t dy_step, int64_t channels, T* sum);
};
struct DepthwiseTable {
  DepthwiseKernels<float> f32;
  DepthwiseKernels<double> f64;
};

}  // namespace fastntk::cpu
FASTNTK_DECLARE_TABLE(DepthwiseTable, depthwise_table)
