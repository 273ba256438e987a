// Inner loops of layer norm and RMS norm, one table per instruction set. Rows of `width` elements, contiguous.
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

template <class T>
struct RowNormLoops {
  /// y = (x − m) r ⊙ a + b by row, with m the mean of the row (zero unless `centre`) and r = 1 / √(mean (x − m)² + ε).
  /// a and b may be null; m and r go to mean[row], rstd[row] where those are not null.
  void (*forward)(int64_t rows, int64_t width, double epsilon, bool centre, const T* x, const T* a, const T* b, T* y,
                  T* mean, T* rstd);
  /// x̂ = (x − mean) rstd of one row.
  void (*normalise)(int64_t width, const T* x, T mean, T rstd, T* xhat);
  /// The self-adjoint core at one row: out = after ⊙ rstd (u − [centre] mean u − x̂ mean(u ⊙ x̂)), u = before ⊙ t.
  /// before, after may be null.
  void (*core)(int64_t width, bool centre, const T* xhat, T rstd, const T* before, const T* after, const T* t, T* out);
  /// sum = Σ t, sum_xhat = Σ t ⊙ x̂ over rows (each may be null), x̂ = (x − mean[row]) rstd[row]; mean may be null.
  void (*sums)(int64_t rows, int64_t width, const T* t, const T* x, const T* mean, const T* rstd, T* sum, T* sum_xhat);
};
struct RowNormTable {
  RowNormLoops<float> float32;
  RowNormLoops<double> float64;
};

}  // namespace fastntk::cpu
FASTNTK_DECLARE_TABLE(RowNormTable, row_norm_table)
