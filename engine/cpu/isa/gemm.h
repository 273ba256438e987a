// The register-level pieces of the matrix product, compiled once per instruction set.
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

/// All matrices are row-major; strides are in elements.
/// Cache lines that will be needed soon: `count` of them in rows of `row_lines`, the rows `stride` elements apart.
template <class T>
struct Ahead {
  const T* start = nullptr;
  int64_t count = 0, row_lines = 1, stride = 0;
};

template <class T>
struct GemmKernels {
  int64_t tile_rows;  // rows of C that stay in registers
  int64_t lanes;      // elements of a register; a panel of the right operand is one or two registers wide

  /// C[rows, columns] = A[rows, depth] B[depth, columns], added to C if `add`. columns <= 2 * lanes, depth <= 512. Each
  /// element is one chain of multiply-adds from zero over ascending depth. Rows of B are readable up to the next
  /// multiple of lanes. The lines of `first`, then those of `second`, are fetched into the level-2 cache meanwhile, as
  /// far as there is time for it.
  void (*multiply)(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb, T* c,
                   int64_t ldc, bool add, const Ahead<T>& first, const Ahead<T>& second);
  /// out[i, j] = in[i, j] for j < columns, zero from there up to the next multiple of lanes.
  void (*copy)(int64_t rows, int64_t columns, const T* in, int64_t in_stride, T* out, int64_t out_stride);
  /// out[j, i] = in[i, j] for i < rows, zero from there up to the next multiple of lanes.
  void (*transpose)(int64_t rows, int64_t columns, const T* in, int64_t in_stride, T* out, int64_t out_stride);
};

struct GemmTable {
  GemmKernels<float> f32;
  GemmKernels<double> f64;
};

}  // namespace fastntk::cpu

FASTNTK_DECLARE_TABLE(GemmTable, gemm_table)
