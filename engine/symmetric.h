// Symmetric float64 matrices: one triangle, in contiguous tiles.
#pragma once
#include <cstdint>

#include "engine/tiles.h"

namespace fastntk {

/// A symmetric matrix [n, n] in float64, n²/2 numbers. Tile (i, j), i ≥ j, is column-major; the tiles of the diagonal
/// hold both triangles; rows and columns beyond n are zero.
class SymmetricMatrix {
 public:
  /// Zeros.
  explicit SymmetricMatrix(int64_t size);
  /// From the lower triangle of a dense float64 [n, n].
  static SymmetricMatrix from(const Tensor& dense);
  SymmetricMatrix clone() const;
  /// Dense float64 [n, n].
  Tensor dense() const;

  int64_t size() const { return tiling_.size; }
  const Tiling& tiling() const { return tiling_; }
  double* tile(int64_t row, int64_t column) { return tile_at(row, column); }
  const double* tile(int64_t row, int64_t column) const { return tile_at(row, column); }
  size_t bytes() const { return buffer_.bytes(); }

  /// this ← this + factor · other.
  void add_scaled(double factor, const SymmetricMatrix& other);
  /// this ← this + value · I.
  void add_to_diagonal(double value);
  /// A x for x [n] or [n, R], float64. A column's bits do not depend on the other columns.
  Tensor multiply(const Tensor& x) const;
  /// ‖A‖₁ = ‖A‖∞, the largest sum of magnitudes in a column. Error naming the column if an element is NaN or infinite.
  double one_norm() const;
  /// All eigenvalues in ascending order, [n] (dsyevr on a dense copy, one thread: seconds for n = 2,000).
  Tensor eigenvalues() const;

 private:
  double* tile_at(int64_t row, int64_t column) const {
    return buffer_.as<double>() + (row * (row + 1) / 2 + column) * tiling_.extent * tiling_.extent;
  }
  int64_t stored() const { return lower_tiles(tiling_.count) * tiling_.extent * tiling_.extent; }
  Tiling tiling_;
  Buffer buffer_;
};

}  // namespace fastntk
