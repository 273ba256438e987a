// Tiles: how large dense matrices are cut for parallel work over single-threaded BLAS. All tiles of a matrix have one
// shape, which depends on the size of the matrix alone, so that every BLAS call, and with it every bit, is the same for
// any number of threads and any way the data arrived in.
#pragma once
#include <cmath>
#include <cstdint>

#include "engine/tensor.h"

namespace fastntk {

/// How `size` rows or columns are cut: `count` tiles of `extent`, the last one padded.
struct Tiling {
  static constexpr int64_t largest = 256;  // two operands and a result fit the second-level cache
  int64_t size = 0, count = 0;
  int extent = 0;
  int64_t padded() const { return count * extent; }
};

/// As few tiles as possible of a multiple of 8 (a vector) rows, with little padding.
inline Tiling tiling_of(int64_t size) {
  constexpr int64_t vector = 8;
  const int64_t count = (size + Tiling::largest - 1) / Tiling::largest;
  if (count == 0) return {};
  const int64_t even = (size + count - 1) / count;
  return {size, count, static_cast<int>((even + vector - 1) / vector * vector)};
}

/// Row and column (row ≥ column) of tile `index` of a lower triangle whose tiles are counted row by row.
struct LowerTile {
  int64_t row, column;
  explicit LowerTile(int64_t index)
      : row(static_cast<int64_t>((std::sqrt(8.0 * static_cast<double>(index) + 1) - 1) / 2)) {
    while (row * (row + 1) / 2 > index) row--;
    while ((row + 1) * (row + 2) / 2 <= index) row++;
    column = index - row * (row + 1) / 2;
  }
};
inline int64_t lower_tiles(int64_t count) { return count * (count + 1) / 2; }

/// Vectors cut like the matrix that they meet: groups of eight columns, zero-padded, each block (a tile's rows of a
/// group) contiguous and column-major. A column's values do not depend on its group's other columns, so neither do its
/// bits.
class ColumnBlocks {
 public:
  static constexpr int width = 8;
  /// Zeros.
  ColumnBlocks(const Tiling& rows, int64_t columns);
  /// From [n] or [n, columns]; `where` names the caller in the error about any other shape.
  ColumnBlocks(const Tiling& rows, const Tensor& values, const char* where);
  int64_t groups() const { return groups_; }
  double* block(int64_t group, int64_t tile) {
    return buffer_.as<double>() + (group * rows_.count + tile) * rows_.extent * width;
  }
  /// Back to a contiguous tensor of this shape ([n] or [n, columns]).
  Tensor to_tensor(const Shape& shape);

 private:
  double* element(int64_t row, int64_t column) {
    return block(column / width, row / rows_.extent) + column % width * rows_.extent + row % rows_.extent;
  }
  Tiling rows_;
  int64_t columns_, groups_;
  Buffer buffer_;
};

}  // namespace fastntk
