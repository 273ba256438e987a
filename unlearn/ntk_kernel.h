// Θ in tiles of float64, and the products that fill them. On the CPU a tile is made by calls of one shape in one order,
// whatever other rows are in memory at the time, so that no budget, number of threads or interruption changes a bit;
// without factored layers the bits are those of dual_gram.
#pragma once
#include <functional>
#include <optional>

#include "engine/symmetric.h"
#include "unlearn/ntk_plan.h"
#include "unlearn/ntk_rows.h"

namespace fastntk {

/// A kernel between two sets [rows, columns], or of one set with itself, of which the lower half is kept. Rows and
/// columns are (sample, class), class fastest. A tile is column-major.
class NtkKernel {
 public:
  /// Zeros. columns = 0: symmetric.
  explicit NtkKernel(int64_t rows, int64_t columns = 0);
  bool symmetric() const { return half_.has_value(); }
  int64_t rows() const { return row_tiling_.size; }
  int64_t columns() const { return column_tiling_.size; }
  const Tiling& row_tiling() const { return row_tiling_; }
  const Tiling& column_tiling() const { return column_tiling_; }
  /// Tile (i, j); of a symmetric kernel i ≥ j.
  double* tile(int64_t i, int64_t j);
  const double* tile(int64_t i, int64_t j) const { return const_cast<NtkKernel*>(this)->tile(i, j); }
  int64_t tile_elements() const { return int64_t{row_tiling_.extent} * column_tiling_.extent; }
  int64_t tiles() const;
  /// The number of tile (i, j), in the order of the lower half, or row by row.
  int64_t index_of(int64_t i, int64_t j) const;
  /// Rows [from, to), dense [to − from, columns].
  Tensor dense_rows(int64_t from, int64_t to) const;
  Tensor dense() const { return dense_rows(0, rows()); }
  double trace() const;
  /// Of a symmetric kernel.
  const SymmetricMatrix& matrix() const;
  SymmetricMatrix& matrix();

 private:
  Tiling row_tiling_, column_tiling_;
  std::optional<SymmetricMatrix> half_;
  Buffer full_;
};

/// Rows of J that belong to tiles [from, to) of one side of a kernel.
struct TileRows {
  Tiling tiling;
  int64_t from = 0, to = 0;
  SampleRange samples{};
  NtkRows data;  ///< of these samples
};

/// How rows of the kernel come from rows of J: one for each class of a sample, or one for all (the class average,
/// (1/C) Σ_c ⟨J_c, J'_c⟩).
struct KernelRows {
  const RowLayout* layout = nullptr;
  bool trace = false;
  /// float64, or for rows of float32 also float32: the sum over a few hundred columns; sums of these are float64.
  DType products = DType::float64;
  int64_t per_sample() const { return trace ? 1 : layout->classes; }
};

/// Fills those tiles of `kernel` between rows of `a` and of `b` for which `wanted` says true; of a symmetric kernel
/// those on and below the diagonal. Error naming row and column of a NaN or infinity in J.
void fill_tiles(const KernelRows& how, const TileRows& a, const TileRows& b,
                const std::function<bool(int64_t i, int64_t j)>& wanted, NtkKernel& kernel);
/// The same for rows on another device, where the products are made. Other groups of tiles may round in another way.
void fill_tiles_on_device(const KernelRows& how, const TileRows& a, const TileRows& b,
                          const std::function<bool(int64_t i, int64_t j)>& wanted, NtkKernel& kernel);

}  // namespace fastntk
