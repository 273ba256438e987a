// Inner loops of batch normalisation, one table per instruction set. Rows are positions of C channels, contiguous.
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

template <class T>
struct ChannelAffineLoops {
  /// y = (x − mean) ⊙ a + b (+ residual), then max(0, ·) if relu; residual may be null.
  void (*forward)(int64_t rows, int64_t channels, const T* x, const T* mean, const T* a, const T* b, const T* residual,
                  bool relu, T* y);
  /// g = c ⊙ [y > 0] (y null: g = c); sum_g = Σ g, sum_gx = Σ g ⊙ (x − mean) over rows (each may be null); masked = g
  /// (may be null); dx = g ⊙ a (may be null).
  void (*transposed)(int64_t rows, int64_t channels, const T* c, const T* y, const T* x, const T* mean, const T* a,
                     T* sum_g, T* sum_gx, T* masked, T* dx);
  /// dx = a ⊙ (c ⊙ [y > 0]) + s ⊙ (x − mean) + d
  void (*transposed_batch)(int64_t rows, int64_t channels, const T* c, const T* y, const T* x, const T* mean,
                           const T* a, const T* s, const T* d, T* dx);
  /// sum = Σ (x − origin), sum_of_squares = Σ (x − origin)² over rows.
  void (*moments)(int64_t rows, int64_t channels, const T* x, const T* origin, double* sum, double* sum_of_squares);
};
struct ChannelAffineTable {
  ChannelAffineLoops<float> float32;
  ChannelAffineLoops<double> float64;
};

}  // namespace fastntk::cpu
FASTNTK_DECLARE_TABLE(ChannelAffineTable, channel_affine_table)
