// Inner loops of the element-wise kernels, one table per instruction set.
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"
#include "engine/kernels/scalar.h"

namespace fastntk::cpu {

template <class T>
struct MapLoops {
  /// y[i] = f(x[i * stride_x]; p), i < n. Indexed by UnaryKind.
  void (*unary[unary_kinds])(int64_t n, T p, const T* x, int64_t stride_x, T* y);
  /// y[i] = f(a[i * stride_a], b[i * stride_b]), i < n. Indexed by BinaryKind.
  void (*binary[binary_kinds])(int64_t n, const T* a, int64_t stride_a, const T* b, int64_t stride_b, T* y);
};
struct MapTable {
  MapLoops<float> float32;
  MapLoops<double> float64;
};

}  // namespace fastntk::cpu
FASTNTK_DECLARE_TABLE(MapTable, map_table)
