#include "engine/gram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/backend.h"
#include "engine/blas.h"
#include "engine/device.h"
#include "engine/file.h"
#include "engine/parallel.h"

namespace fastntk {
namespace {

constexpr int block_extent = 256;       // rows (primal) or columns (dual) of J to a block
constexpr int64_t device_panel = 1024;  // columns of a primal matrix on a device

// [..., P] as [m, P] with contiguous rows.
Tensor as_rows(const Tensor& rows, const char* where) {
  require(rows.defined() && rows.rank() >= 1 && is_floating(rows.dtype()),
          "{} needs rows [..., P] of float32 or float64, got {}", where, rows.defined() ? rows.describe() : "nothing");
  if (rows.rank() == 2 && (rows.strides()[1] == 1 || rows.extent(1) <= 1)) return rows;
  const int64_t columns = rows.extent(-1);
  int64_t count = 1;
  for (int axis = 0; axis + 1 < rows.rank(); axis++) count *= rows.extent(axis);
  return rows.contiguous().reshape({count, columns});
}

// Converts `count` numbers of row `row` from column `from` on; refuses what is not finite.
template <class T>
void convert(const T* source, int64_t count, double* to, int64_t row, int64_t from) {
  bool finite = true;
  for (int64_t i = 0; i < count; i++) {
    finite &= std::fabs(source[i]) <= std::numeric_limits<T>::max();
    to[i] = source[i];
  }
  if (finite) [[likely]]
    return;
  for (int64_t i = 0; i < count; i++)
    require(std::isfinite(source[i]), "row {}, column {} of the Jacobian is {}: a Gram matrix needs finite rows", row,
            from + i, source[i]);
}

// Columns [from, from + 256) of all rows, in panels of one tile's rows each; a row's 256 numbers are contiguous.
class ColumnPanels {
 public:
  explicit ColumnPanels(const Tensor& rows)
      : rows_(rows),
        tiling_(tiling_of(rows.extent(0))),
        buffer_(sizeof(double) * static_cast<size_t>(tiling_.padded() * block_extent)) {}
  const Tiling& tiling() const { return tiling_; }
  const double* panel(int64_t tile) const { return buffer_.as<double>() + tile * tiling_.extent * block_extent; }

  void load(int64_t from) {
    for_floating(rows_.dtype(), "dual_gram", [&](auto zero) { load_as<decltype(zero)>(from); });
  }

 private:
  template <class T>
  void load_as(int64_t from) {
    const T* const source = rows_.data<T>();
    const int64_t count = std::min<int64_t>(block_extent, rows_.extent(1) - from);
    parallel_for(tiling_.count, [&](int64_t tile) {
      double* to = buffer_.as<double>() + tile * tiling_.extent * block_extent;
      for (int64_t row = tile * tiling_.extent; row < (tile + 1) * tiling_.extent; row++, to += block_extent) {
        const int64_t given = row < tiling_.size ? count : 0;
        if (given > 0) convert(source + row * rows_.strides()[0] + from, given, to, row, from);
        std::fill(to + given, to + block_extent, 0.0);
      }
    });
  }
  Tensor rows_;
  Tiling tiling_;
  Buffer buffer_;
};

// The products fill only the lower triangle of a diagonal tile.
void mirror_diagonal_tiles(SymmetricMatrix& matrix) {
  const int64_t extent = matrix.tiling().extent;
  parallel_for(matrix.tiling().count, [&](int64_t i) {
    double* const tile = matrix.tile(i, i);
    for (int64_t c = 0; c < extent; c++)
      for (int64_t r = c + 1; r < extent; r++) tile[r * extent + c] = tile[c * extent + r];
  });
}

}  // namespace

GramAccumulator::GramAccumulator(SymmetricMatrix start, double sign)
    : GramAccumulator(std::move(start), 0, sign, Device::cpu) {}

GramAccumulator::GramAccumulator(int64_t columns, int64_t right_hand_sides, Device device)
    : GramAccumulator(SymmetricMatrix(columns), right_hand_sides, 1, device) {}

GramAccumulator::GramAccumulator(SymmetricMatrix start, int64_t right_hand_sides, double sign, Device device)
    : tiling_(start.tiling()),
      device_(device),
      right_hand_sides_(right_hand_sides),
      sign_(sign),
      block_(device == Device::cpu ? sizeof(double) * static_cast<size_t>(tiling_.padded() * block_extent) : 0),
      residuals_(sizeof(double) * static_cast<size_t>(right_hand_sides * block_extent)),
      matrix_(std::move(start)),
      sums_(sizeof(double) * static_cast<size_t>(right_hand_sides * tiling_.padded())) {
  if (device != Device::cpu) {
    const int64_t P = tiling_.size;
    for (int64_t from = 0; from < P; from += device_panel)
      device_panels_.push_back(Tensor::zeros({P - from, std::min(device_panel, P - from)}, DType::float64, device));
    device_sums_ = Tensor::zeros({P, right_hand_sides}, DType::float64, device);
  }
  std::fill_n(block_.as<double>(), block_.bytes() / sizeof(double), 0.0);
  std::fill_n(residuals_.as<double>(), right_hand_sides * block_extent, 0.0);
  std::fill_n(sums_.as<double>(), right_hand_sides * tiling_.padded(), 0.0);
}

void GramAccumulator::add(const Tensor& rows, const Tensor& residuals) {
  const Tensor matrix = as_rows(rows, "GramAccumulator::add");
  const int64_t count = matrix.extent(0);
  require(matrix.extent(1) == tiling_.size, "GramAccumulator::add needs rows of {} numbers, got {}", tiling_.size,
          rows.describe());
  Tensor targets;
  if (right_hand_sides_ > 0) {
    require(residuals.defined() && residuals.elements() == count * right_hand_sides_ && is_floating(residuals.dtype()),
            "GramAccumulator::add needs {} residuals for each of {} rows, got {}", right_hand_sides_, count,
            residuals.defined() ? residuals.describe() : "none");
    targets = residuals.to(DType::float64).contiguous();
    for (int64_t i = 0; i < targets.elements(); i++)
      require(std::isfinite(targets.data<double>()[i]),
              "the residual of row {} is {}: normal equations need finite residuals", rows_ + i / right_hand_sides_,
              targets.data<double>()[i]);
  }
  require(matrix.device() == device_ || matrix.device() == Device::cpu,
          "GramAccumulator::add on the device {} was given rows of {}", name_of(device_), name_of(matrix.device()));
  if (device_ != Device::cpu) return add_on_device(matrix.to(device_), targets);
  for (int64_t from = 0; from < count;) {
    const int64_t taken = std::min(count - from, block_extent - filled_);
    for (int64_t i = 0; i < taken; i++)
      for (int64_t r = 0; r < right_hand_sides_; r++)
        residuals_.as<double>()[r * block_extent + filled_ + i] =
            targets.data<double>()[(from + i) * right_hand_sides_ + r];
    for_floating(matrix.dtype(), "GramAccumulator::add",
                 [&](auto zero) { collect<decltype(zero)>(matrix, from, taken); });
    from += taken, filled_ += taken, rows_ += taken;
    if (filled_ == block_extent) flush();
  }
}

template <class T>
void GramAccumulator::collect(const Tensor& rows, int64_t from, int64_t count) {
  const T* const source = rows.data<T>();
  const int64_t extent = tiling_.extent, stride = rows.strides()[0];
  parallel_for(tiling_.count, [&](int64_t tile) {
    const int64_t first = tile * extent, columns = std::min(extent, tiling_.size - first);
    double* const panel = block_.as<double>() + (tile * block_extent + filled_) * extent;
    for (int64_t i = 0; i < count; i++)
      convert(source + (from + i) * stride + first, columns, panel + i * extent, rows_ + i, first);
  });
}

void GramAccumulator::add_on_device(const Tensor& rows, const Tensor& residuals) {
  constexpr int64_t piece = 2048;  // rows in float64 at once
  const Backend& device = backend_of(rows);
  const int64_t P = tiling_.size, R = right_hand_sides_;
  require_finite_rows(rows, rows_);
  const auto add_product = [&](const Tensor& transposed, const Tensor& right, Tensor& sum) {
    Tensor part(sum.shape(), DType::float64, sum.device());
    device.gemm(transposed.transpose(0, 1), right, part, false);
    device.map(BinaryKind::add, sum, part, sum);
  };
  for (int64_t from = 0; from < rows.extent(0); from += piece) {
    const int64_t to = std::min(rows.extent(0), from + piece);
    const Tensor part = rows.slice(0, from, to).to(DType::float64);
    for (size_t k = 0; k < device_panels_.size(); k++) {
      const int64_t column = static_cast<int64_t>(k) * device_panel;
      add_product(part.slice(1, column, P), part.slice(1, column, std::min(P, column + device_panel)),
                  device_panels_[k]);
    }
    if (R == 0) continue;
    add_product(part, residuals.reshape({rows.extent(0), R}).slice(0, from, to).to(rows.device()), device_sums_);
  }
  rows_ += rows.extent(0);
}

// What was added on a device, to the host.
void GramAccumulator::add_from_device(Tensor& right_hand_side) {
  const int64_t P = tiling_.size;
  Tensor dense = Tensor::zeros({P, P}, DType::float64);
  for (size_t k = 0; k < device_panels_.size(); k++) {
    const int64_t column = static_cast<int64_t>(k) * device_panel;
    dense.slice(0, column, P)
        .slice(1, column, std::min(P, column + device_panel))
        .copy_from(device_panels_[k].to(Device::cpu));
  }
  matrix_.add_scaled(sign_, SymmetricMatrix::from(dense));
  const Tensor sums = device_sums_.to(Device::cpu);
  backend_of(sums).map(BinaryKind::add, right_hand_side, sums, right_hand_side);
}

void GramAccumulator::flush() {
  const int extent = tiling_.extent;
  const auto panel = [&](int64_t tile) { return block_.as<double>() + tile * block_extent * extent; };
  parallel_for(lower_tiles(tiling_.count), [&](int64_t t) {
    const LowerTile at(t);
    double* const out = matrix_.tile(at.row, at.column);
    if (at.row != at.column) {
      blas::gemm('N', 'T', extent, extent, block_extent, sign_, panel(at.row), extent, panel(at.column), extent, 1.0,
                 out, extent);
      return;
    }
    blas::syrk('L', 'N', extent, block_extent, sign_, panel(at.row), extent, 1.0, out, extent);
    double sum[Tiling::largest];
    for (int64_t r = 0; r < right_hand_sides_; r++) {
      std::fill_n(sum, extent, 0.0);
      for (int64_t row = 0; row < block_extent; row++) {
        const double weight = residuals_.as<double>()[r * block_extent + row];
        const double* const values = panel(at.row) + row * extent;
        for (int c = 0; c < extent; c++) sum[c] += weight * values[c];
      }
      double* const total = sums_.as<double>() + r * tiling_.padded() + at.row * extent;
      for (int c = 0; c < extent; c++) total[c] += sum[c];
    }
  });
  filled_ = 0;
}

// The parts of the state: counters, then the four buffers, or what is on the device.
size_t GramAccumulator::state_bytes() const {
  size_t bytes = 2 * sizeof(int64_t);
  if (device_ == Device::cpu) return bytes + block_.bytes() + residuals_.bytes() + matrix_.bytes() + sums_.bytes();
  for (const Tensor& panel : device_panels_) bytes += panel.bytes();
  return bytes + device_sums_.bytes();
}

void GramAccumulator::save_state(const WriteBytes& write) const {
  const int64_t counters[2] = {rows_, filled_};
  write(std::as_bytes(std::span(counters)));
  if (device_ != Device::cpu) {
    for (const Tensor& panel : device_panels_) write(bytes_of(panel.to(Device::cpu)));
    return write(bytes_of(device_sums_.to(Device::cpu)));
  }
  for (const Buffer* const b : {&block_, &residuals_, &sums_}) write({b->as<std::byte>(), b->bytes()});
  if (tiling_.count) write({reinterpret_cast<const std::byte*>(matrix_.tile(0, 0)), matrix_.bytes()});
}

void GramAccumulator::load_state(const ReadBytes& read) {
  int64_t counters[2] = {};
  read(std::as_writable_bytes(std::span(counters)));
  rows_ = counters[0], filled_ = counters[1];
  require(filled_ >= 0 && filled_ < block_extent, "a Gram matrix cannot go on with {} rows in a block of {}", filled_,
          block_extent);
  if (device_ != Device::cpu) {
    const auto load = [&](Tensor& sum) {
      Tensor here(sum.shape(), sum.dtype());
      read(mutable_bytes_of(here));
      sum = here.to(device_);
    };
    for (Tensor& panel : device_panels_) load(panel);
    return load(device_sums_);
  }
  for (Buffer* const b : {&block_, &residuals_, &sums_}) read({b->as<std::byte>(), b->bytes()});
  if (tiling_.count) read({reinterpret_cast<std::byte*>(matrix_.tile(0, 0)), matrix_.bytes()});
}

void GramAccumulator::add_state(const ReadBytes& read) {
  int64_t counters[2] = {};
  read(std::as_writable_bytes(std::span(counters)));
  require(counters[1] == 0, "sums of a Gram matrix whose last block has {} rows and was not closed cannot be added",
          counters[1]);
  rows_ += counters[0];
  if (device_ != Device::cpu) {
    const auto add = [&](Tensor& sum) {
      Tensor here(sum.shape(), sum.dtype());
      read(mutable_bytes_of(here));
      backend(device_).map(BinaryKind::add, sum, here.to(device_), sum);
    };
    for (Tensor& panel : device_panels_) add(panel);
    return add(device_sums_);
  }
  std::vector<double> piece(1 << 17);
  // Reads `bytes`, and adds them where there is a `to`.
  const auto add = [&](double* to, size_t bytes) {
    for (size_t left = bytes / sizeof(double); left > 0;) {
      const std::span<double> part = std::span(piece).first(std::min(left, piece.size()));
      read(std::as_writable_bytes(part));
      left -= part.size();
      if (to)
        for (const double x : part) *to++ += x;
    }
  };
  add(nullptr, block_.bytes() + residuals_.bytes());
  add(sums_.as<double>(), sums_.bytes());
  if (tiling_.count) add(matrix_.tile(0, 0), matrix_.bytes());
}

void GramAccumulator::close_block() {
  if (filled_ == 0) return;
  for (int64_t tile = 0; tile < tiling_.count; tile++) {
    double* const panel = block_.as<double>() + tile * block_extent * tiling_.extent;
    std::fill(panel + filled_ * tiling_.extent, panel + block_extent * tiling_.extent, 0.0);
  }
  for (int64_t r = 0; r < right_hand_sides_; r++)
    std::fill(residuals_.as<double>() + r * block_extent + filled_, residuals_.as<double>() + (r + 1) * block_extent,
              0.0);
  flush();
}

Gram GramAccumulator::finish() && {
  close_block();
  mirror_diagonal_tiles(matrix_);
  Tensor right_hand_side({tiling_.size, right_hand_sides_}, DType::float64);
  double* to = right_hand_side.mutable_data<double>();
  for (int64_t c = 0; c < tiling_.size; c++)
    for (int64_t r = 0; r < right_hand_sides_; r++) *to++ = sums_.as<double>()[r * tiling_.padded() + c];
  if (device_ != Device::cpu) add_from_device(right_hand_side);
  return {std::move(matrix_), right_hand_side, rows_};
}

void require_finite_rows(const Tensor& rows, int64_t first) {
  const int64_t at = backend_of(rows).first_non_finite(rows), columns = std::max<int64_t>(1, rows.extent(-1));
  require(at < 0, "row {}, column {} of the Jacobian is not finite: a Gram matrix needs finite rows",
          first + at / columns, at % columns);
}

SymmetricMatrix dual_gram(const Tensor& rows) {
  const Tensor matrix = as_rows(rows, "dual_gram");
  if (matrix.device() != Device::cpu) return SymmetricMatrix::from(dual_gram(matrix, matrix));
  ColumnPanels panels(matrix);
  SymmetricMatrix out(matrix.extent(0));
  const int extent = panels.tiling().extent;
  for (int64_t from = 0; from < matrix.extent(1); from += block_extent) {
    panels.load(from);
    parallel_for(lower_tiles(panels.tiling().count), [&](int64_t t) {
      const LowerTile at(t);
      double* const tile = out.tile(at.row, at.column);
      if (at.row == at.column)
        blas::syrk('L', 'T', extent, block_extent, 1.0, panels.panel(at.row), block_extent, 1.0, tile, extent);
      else
        blas::gemm('T', 'N', extent, extent, block_extent, 1.0, panels.panel(at.row), block_extent,
                   panels.panel(at.column), block_extent, 1.0, tile, extent);
    });
  }
  mirror_diagonal_tiles(out);
  return out;
}

Tensor dual_gram_on_device(const Tensor& a, const Tensor& b, DType products) {
  constexpr int64_t float_columns = 512, at_once = 1 << 25;  // numbers of float64 rows
  const Tensor left = as_rows(a, "dual_gram"), right = as_rows(b, "dual_gram");
  require(left.extent(1) == right.extent(1), "dual_gram needs rows of one length, got {} and {}", a.describe(),
          b.describe());
  const Device device = left.device();
  const Backend& kernels = backend(device);
  const int64_t rows = left.extent(0) + right.extent(0);
  const int64_t columns =
      products == DType::float32 ? float_columns : std::max<int64_t>(1024, at_once / std::max<int64_t>(1, rows));
  Tensor sum = Tensor::zeros({left.extent(0), right.extent(0)}, DType::float64, device),
         part(sum.shape(), products, device);
  for (int64_t from = 0; from < left.extent(1); from += columns) {
    const int64_t to = std::min(left.extent(1), from + columns);
    kernels.gemm(left.slice(1, from, to).to(products), right.slice(1, from, to).to(products).transpose(0, 1), part,
                 false);
    kernels.map(BinaryKind::add, sum, part.to(DType::float64), sum);
  }
  return sum.to(Device::cpu);
}

Tensor dual_gram(const Tensor& a, const Tensor& b) {
  if (a.device() != Device::cpu) {
    for (const Tensor* const rows : {&a, &b}) require_finite_rows(*rows, 0);
    return dual_gram_on_device(a, b);
  }
  const Tensor left = as_rows(a, "dual_gram"), right = as_rows(b, "dual_gram");
  require(left.extent(1) == right.extent(1), "dual_gram needs rows of one length, got {} and {}", a.describe(),
          b.describe());
  ColumnPanels rows(left), columns(right);
  const int row_extent = rows.tiling().extent, column_extent = columns.tiling().extent;
  const int64_t stride = columns.tiling().padded();
  require(stride <= std::numeric_limits<int>::max(), "dual_gram of {} columns: at most {}", stride,
          std::numeric_limits<int>::max());
  Tensor out = Tensor::zeros({rows.tiling().padded(), stride}, DType::float64);
  double* const to = out.mutable_data<double>();
  for (int64_t from = 0; from < left.extent(1); from += block_extent) {
    rows.load(from);
    columns.load(from);
    // To BLAS the row-major result is its transpose, column-major.
    parallel_for(rows.tiling().count * columns.tiling().count, [&](int64_t item) {
      const int64_t i = item / columns.tiling().count, j = item % columns.tiling().count;
      blas::gemm('T', 'N', column_extent, row_extent, block_extent, 1.0, columns.panel(j), block_extent, rows.panel(i),
                 block_extent, 1.0, to + i * row_extent * stride + j * column_extent, static_cast<int>(stride));
    });
  }
  return out.slice(0, 0, left.extent(0)).slice(1, 0, right.extent(0));
}

}  // namespace fastntk
