#include "engine/tiles.h"

#include <algorithm>

namespace fastntk {

ColumnBlocks::ColumnBlocks(const Tiling& rows, int64_t columns)
    : rows_(rows),
      columns_(columns),
      groups_((columns + width - 1) / width),
      buffer_(sizeof(double) * static_cast<size_t>(groups_ * width * rows.padded())) {
  std::fill_n(buffer_.as<double>(), groups_ * width * rows.padded(), 0.0);
}

ColumnBlocks::ColumnBlocks(const Tiling& rows, const Tensor& values, const char* where)
    : ColumnBlocks(rows, values.rank() == 2 ? values.extent(1) : 1) {
  require(
      (values.rank() == 1 || values.rank() == 2) && values.extent(0) == rows.size && values.dtype() == DType::float64,
      "{} needs float64 [{}] or [{}, columns], got {}", where, rows.size, rows.size, values.describe());
  const Tensor source = values.contiguous();
  const double* from = source.data<double>();
  for (int64_t r = 0; r < rows_.size; r++)
    for (int64_t c = 0; c < columns_; c++) *element(r, c) = *from++;
}

Tensor ColumnBlocks::to_tensor(const Shape& shape) {
  Tensor out(shape, DType::float64);
  double* to = out.mutable_data<double>();
  for (int64_t r = 0; r < rows_.size; r++)
    for (int64_t c = 0; c < columns_; c++) *to++ = *element(r, c);
  return out;
}

}  // namespace fastntk
