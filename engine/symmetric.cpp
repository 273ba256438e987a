#include "engine/symmetric.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/blas.h"
#include "engine/parallel.h"

namespace fastntk {

SymmetricMatrix::SymmetricMatrix(int64_t size)
    : tiling_(tiling_of(size)),
      buffer_(sizeof(double) * static_cast<size_t>(lower_tiles(tiling_.count) * tiling_.extent * tiling_.extent)) {
  require(size >= 0, "a symmetric matrix of size {}", size);
  const int64_t area = int64_t{tiling_.extent} * tiling_.extent;
  parallel_for(lower_tiles(tiling_.count), [&](int64_t t) { std::fill_n(buffer_.as<double>() + t * area, area, 0.0); });
}

SymmetricMatrix SymmetricMatrix::from(const Tensor& dense) {
  require(dense.rank() == 2 && dense.extent(0) == dense.extent(1) && dense.dtype() == DType::float64,
          "a symmetric matrix needs float64 [n, n], got {}", dense.describe());
  SymmetricMatrix out(dense.extent(0));
  const Tensor contiguous = dense.contiguous();
  const double* const source = contiguous.data<double>();
  const int64_t n = out.size(), extent = out.tiling_.extent;
  parallel_for(lower_tiles(out.tiling_.count), [&](int64_t t) {
    const LowerTile at(t);
    double* const tile = out.tile(at.row, at.column);
    const int64_t rows = std::min(extent, n - at.row * extent), columns = std::min(extent, n - at.column * extent);
    for (int64_t c = 0; c < columns; c++)
      for (int64_t r = 0; r < rows; r++) {
        const int64_t row = at.row * extent + r, column = at.column * extent + c;
        tile[c * extent + r] = source[std::max(row, column) * n + std::min(row, column)];
      }
  });
  return out;
}

SymmetricMatrix SymmetricMatrix::clone() const {
  SymmetricMatrix out(size());
  std::copy_n(buffer_.as<double>(), stored(), out.buffer_.as<double>());
  return out;
}

Tensor SymmetricMatrix::dense() const {
  const int64_t n = size(), extent = tiling_.extent;
  Tensor out({n, n}, DType::float64);
  double* const to = out.mutable_data<double>();
  parallel_for(tiling_.count, [&](int64_t i) {
    for (int64_t row = i * extent; row < std::min(n, (i + 1) * extent); row++)
      for (int64_t column = 0; column <= row; column++) {
        const double value = tile(i, column / extent)[column % extent * extent + row % extent];
        to[row * n + column] = value;
        to[column * n + row] = value;
      }
  });
  return out;
}

void SymmetricMatrix::add_scaled(double factor, const SymmetricMatrix& other) {
  require(size() == other.size(), "a symmetric matrix of size {} plus one of size {}", size(), other.size());
  const int64_t area = int64_t{tiling_.extent} * tiling_.extent;
  parallel_for(lower_tiles(tiling_.count), [&](int64_t t) {
    double* const to = buffer_.as<double>() + t * area;
    const double* const from = other.buffer_.as<double>() + t * area;
    for (int64_t i = 0; i < area; i++) to[i] += factor * from[i];
  });
}

void SymmetricMatrix::add_to_diagonal(double value) {
  const int64_t extent = tiling_.extent;
  for (int64_t i = 0; i < size(); i++) tile(i / extent, i / extent)[i % extent * (extent + 1)] += value;
}

Tensor SymmetricMatrix::multiply(const Tensor& x) const {
  ColumnBlocks in(tiling_, x, "the product with a symmetric matrix");
  ColumnBlocks out(tiling_, x.rank() == 2 ? x.extent(1) : 1);
  const int extent = tiling_.extent;
  parallel_for(tiling_.count * in.groups(), [&](int64_t item) {
    const int64_t i = item / in.groups(), group = item % in.groups();
    for (int64_t j = 0; j < tiling_.count; j++)
      blas::gemm(j <= i ? 'N' : 'T', 'N', extent, ColumnBlocks::width, extent, 1.0,
                 tile(std::max(i, j), std::min(i, j)), extent, in.block(group, j), extent, 1.0, out.block(group, i),
                 extent);
  });
  return out.to_tensor(x.shape());
}

double SymmetricMatrix::one_norm() const {
  const int64_t extent = tiling_.extent;
  std::vector<double> sums(static_cast<size_t>(tiling_.padded()), 0.0);
  // Tile columns: what stands below the diagonal in a column, then what stands right of it in the row.
  parallel_for(tiling_.count, [&](int64_t j) {
    double* const sum = sums.data() + j * extent;
    for (int64_t i = j; i < tiling_.count; i++)
      for (int64_t c = 0; c < extent; c++)
        for (int64_t r = 0; r < extent; r++) sum[c] += std::fabs(tile(i, j)[c * extent + r]);
    for (int64_t i = 0; i < j; i++)
      for (int64_t c = 0; c < extent; c++)
        for (int64_t r = 0; r < extent; r++) sum[r] += std::fabs(tile(j, i)[c * extent + r]);
  });
  double largest = 0;
  for (int64_t c = 0; c < size(); c++) {
    require(std::isfinite(sums[static_cast<size_t>(c)]),
            "a symmetric matrix [{}, {}] has a NaN or infinity in column {}", size(), size(), c);
    largest = std::max(largest, sums[static_cast<size_t>(c)]);
  }
  return largest;
}

Tensor SymmetricMatrix::eigenvalues() const {
  static_cast<void>(one_norm());  // refuses NaN, which dsyevr does not survive
  require(size() <= 32768, "eigenvalues of a dense matrix of size {}: at most 32768", size());
  Tensor copy = dense();
  Tensor values({size()}, DType::float64);
  if (size() > 0)
    blas::eigenvalues('L', static_cast<int>(size()), copy.mutable_data<double>(), static_cast<int>(size()),
                      values.mutable_data<double>());
  return values;
}

}  // namespace fastntk
