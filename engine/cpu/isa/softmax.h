// Softmax of one row after the other, one table per instruction set. Rows lie one after the other in memory.
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

template <class T>
struct SoftmaxRows {
  /// x, y [rows, n]; of logsumexp, y [rows]. Indexed by SoftmaxKind.
  void (*forward[3])(int64_t rows, int64_t n, const T* x, T* y);
  /// One row: out from the row p of the point and the row t of a tangent or cotangent. Indexed by SoftmaxMap.
  void (*map[3])(int64_t n, const T* p, const T* t, T* out);
};
struct SoftmaxTable {
  SoftmaxRows<float> float32;
  SoftmaxRows<double> float64;
};

}  // namespace fastntk::cpu
FASTNTK_DECLARE_TABLE(SoftmaxTable, softmax_table)
