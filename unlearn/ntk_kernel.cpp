#include "unlearn/ntk_kernel.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>

#include "engine/blas.h"
#include "engine/parallel.h"

namespace fastntk {
namespace {

constexpr int panel_row_bytes = 2048;
// Columns of J at a time in products of this type.
template <class T>
constexpr int block = panel_row_bytes / sizeof(T);

// Numbers [from, from + count) of a row of J in the type of the products; the rest of the block zero.
template <class T, class To>
void convert(const T* source, int64_t count, To* to, int64_t row, int64_t from) {
  bool finite = true;
  for (int64_t i = 0; i < count; i++) {
    finite &= std::fabs(source[i]) <= std::numeric_limits<T>::max();
    to[i] = static_cast<To>(source[i]);
  }
  std::fill(to + count, to + block<To>, To{0});
  if (finite) [[likely]]
    return;
  for (int64_t i = 0; i < count; i++)
    require(std::isfinite(to[i]), "row {}, column {} of the Jacobian is {}: a kernel needs finite rows", row, from + i,
            to[i]);
}

// Panels of one side: a tile's rows, or its samples, times a block of columns, [row, block].
class Panels {
 public:
  Panels(const KernelRows& how, const TileRows& rows) : how_(how), rows_(rows) {}

  // Columns [from, to) of J's rows in tile t; for a class average those of class `pass`.
  template <class To>
  void load_rows(int64_t t, int64_t from, int64_t to, int64_t pass, To* panel) const {
    const int64_t R = how_.per_sample(), C = how_.layout->classes, extent = rows_.tiling.extent;
    for_floating(rows_.data.rows.dtype(), "a kernel", [&](auto zero) {
      using T = decltype(zero);
      const T* const data = rows_.data.rows.data<T>();
      for (int64_t r = 0; r < extent; r++, panel += block<To>) {
        const int64_t row = t * extent + r;
        if (row >= rows_.tiling.size) {
          std::fill_n(panel, block<To>, To{0});
          continue;
        }
        const int64_t of = (row / R - rows_.samples.first) * C + (how_.trace ? pass : row % R);
        convert(data + of * how_.layout->stored + from, to - from, panel, row, from);
      }
    });
  }

  // Numbers [from, to) of what is kept of each sample of tile t; `height` rows, zeros after the last.
  void load_samples(int64_t t, int64_t from, int64_t to, int64_t height, double* panel) const {
    const SampleRange samples = of_tile(t);
    for_floating(rows_.data.extra.dtype(), "a kernel", [&](auto zero) {
      using T = decltype(zero);
      const T* const data = rows_.data.extra.data<T>();
      for (int64_t s = 0; s < height; s++, panel += block<double>)
        if (s < samples.size())
          convert(data + (samples.first + s - rows_.samples.first) * how_.layout->extra + from, to - from, panel,
                  samples.first + s, from);
        else
          std::fill_n(panel, block<double>, 0.0);
    });
  }

  SampleRange of_tile(int64_t t) const {
    const int64_t R = how_.per_sample();
    return samples_of_tiles(t, t + 1, rows_.tiling.extent, R, (rows_.tiling.size + R - 1) / R);
  }
  // The place of a row's sample in its tile.
  int64_t sample_in_tile(int64_t t, int64_t r) const {
    const int64_t R = how_.per_sample(), extent = rows_.tiling.extent;
    return (t * extent + r) / R - t * extent / R;
  }
  int64_t valid_rows(int64_t t) const {
    return std::min<int64_t>(rows_.tiling.extent, rows_.tiling.size - t * rows_.tiling.extent);
  }

 private:
  const KernelRows& how_;
  const TileRows& rows_;
};

int64_t most_samples(const KernelRows& how, int64_t extent) {
  const int64_t R = how.per_sample();
  const int64_t most = R == 1 ? extent : std::min(extent, (extent - 2) / R + 2);
  return (most + 7) / 8 * 8;
}

// What a thread works with: panels of the tiles of either side, and two tiles of products, for factored layers or for
// products in float32.
struct Scratch {
  Scratch(int64_t together, bool tiles)
      : left_panels(panel_bytes * static_cast<size_t>(together)),
        right_panels(panel_bytes * static_cast<size_t>(together)) {
    if (!tiles) return;
    gradients = Buffer(sizeof(double) * Tiling::largest * Tiling::largest);
    inputs = Buffer(sizeof(double) * Tiling::largest * Tiling::largest);
  }
  template <class T = double>
  T* left(int64_t k) {
    return left_panels.as<T>() + k * Tiling::largest * block<T>;
  }
  template <class T = double>
  T* right(int64_t k) {
    return right_panels.as<T>() + k * Tiling::largest * block<T>;
  }

  static constexpr size_t panel_bytes = size_t{Tiling::largest} * panel_row_bytes;
  Buffer left_panels, right_panels, gradients, inputs;
};

// All that the threads work with, there from the start, so that the peak of memory does not hang on which of them meet.
class ScratchPool {
 public:
  ScratchPool(int64_t count, int64_t together, bool tiles) {
    for (int64_t k = 0; k < count; k++) idle_.push_back(&all_.emplace_back(together, tiles));
  }
  // One that is idle, until the pointer goes.
  std::unique_ptr<Scratch, std::function<void(Scratch*)>> take() {
    const std::lock_guard lock(mutex_);
    Scratch* const scratch = idle_.back();
    idle_.pop_back();
    return {scratch, [this](Scratch* s) {
              const std::lock_guard back(mutex_);
              idle_.push_back(s);
            }};
  }

 private:
  std::mutex mutex_;
  std::deque<Scratch> all_;
  std::vector<Scratch*> idle_;
};

// tile += x yᵀ for panels of tiles i and j.
void add_product(const double* x, const double* y, int rows, int columns, bool diagonal, Scratch&, double* tile) {
  constexpr int k = block<double>;
  if (diagonal)
    blas::syrk('L', 'T', rows, k, 1.0, x, k, 1.0, tile, rows);
  else
    blas::gemm('T', 'N', rows, columns, k, 1.0, x, k, y, k, 1.0, tile, rows);
}
void add_product(const float* x, const float* y, int rows, int columns, bool diagonal, Scratch& scratch, double* tile) {
  constexpr int k = block<float>;
  auto* const product = scratch.gradients.as<float>();
  blas::gemm('T', 'N', rows, columns, k, 1.0F, x, k, diagonal ? x : y, k, 0.0F, product, rows);
  for (int64_t e = 0; e < int64_t{rows} * columns; e++) tile[e] += static_cast<double>(product[e]);
}

// tile += ⟨g, g'⟩ ⟨x, x'⟩ for each factored layer.
void add_layers(const KernelRows& how, const Panels& a, const Panels& b, int64_t i, int64_t j, int rows, int columns,
                Scratch& scratch, double* tile) {
  const int passes = how.trace ? static_cast<int>(how.layout->classes) : 1;
  const auto m = static_cast<int>(most_samples(how, rows)), n = static_cast<int>(most_samples(how, columns));
  constexpr int k = block<double>;
  double *const left = scratch.left(0), *const right = scratch.right(0);
  double *const g = scratch.gradients.as<double>(), *const x = scratch.inputs.as<double>();
  for (const FactoredLayer& layer : how.layout->layers) {
    std::fill_n(g, int64_t{rows} * columns, 0.0);
    std::fill_n(x, int64_t{m} * n, 0.0);
    for (int pass = 0; pass < passes; pass++)
      for (int64_t from = 0; from < layer.outputs; from += k) {
        const int64_t to = std::min<int64_t>(layer.outputs, from + k);
        a.load_rows(i, layer.gradient + from, layer.gradient + to, pass, left);
        b.load_rows(j, layer.gradient + from, layer.gradient + to, pass, right);
        blas::gemm('T', 'N', rows, columns, k, 1.0, left, k, right, k, 1.0, g, rows);
      }
    for (int64_t from = 0; from < layer.inputs; from += k) {
      const int64_t to = std::min<int64_t>(layer.inputs, from + k);
      a.load_samples(i, layer.input + from, layer.input + to, m, left);
      b.load_samples(j, layer.input + from, layer.input + to, n, right);
      blas::gemm('T', 'N', m, n, k, 1.0, left, k, right, k, 1.0, x, m);
    }
    const int64_t valid = a.valid_rows(i);
    for (int64_t c = 0; c < b.valid_rows(j); c++) {
      const double* const of = x + b.sample_in_tile(j, c) * m;
      for (int64_t r = 0; r < valid; r++) tile[c * rows + r] += g[c * rows + r] * of[a.sample_in_tile(i, r)];
    }
  }
}

// Fills tiles by products of type T.
template <class T>
void fill(const KernelRows& how, const TileRows& a, const TileRows& b,
          const std::function<bool(int64_t i, int64_t j)>& wanted, NtkKernel& kernel) {
  const RowLayout& layout = *how.layout;
  const int rows = kernel.row_tiling().extent, columns = kernel.column_tiling().extent;
  const int passes = how.trace ? static_cast<int>(layout.classes) : 1;
  const Panels left(how, a), right(how, b);
  const int64_t together = ntk_tiles_together(a.to - a.from, b.to - b.from, thread_count());
  const int64_t groups = (b.to - b.from + together - 1) / together;
  const int64_t items = (a.to - a.from + together - 1) / together * groups;
  ScratchPool pool(std::min<int64_t>(items, thread_count()), together,
                   !layout.layers.empty() || sizeof(T) < sizeof(double));
  // Each item owns its tiles.
  parallel_for(items, [&](int64_t item) {
    const int64_t first_i = a.from + item / groups * together, last_i = std::min(a.to, first_i + together);
    const int64_t first_j = b.from + item % groups * together, last_j = std::min(b.to, first_j + together);
    std::vector<std::pair<int64_t, int64_t>> tiles;
    for (int64_t i = first_i; i < last_i; i++)
      for (int64_t j = first_j; j < last_j; j++)
        if ((!kernel.symmetric() || j <= i) && wanted(i, j)) tiles.emplace_back(i, j);
    if (tiles.empty()) return;
    // Panels that are needed; on the right none for the diagonal.
    std::vector<char> left_needed(static_cast<size_t>(together)), right_needed(static_cast<size_t>(together));
    for (const auto& [i, j] : tiles) {
      std::fill_n(kernel.tile(i, j), kernel.tile_elements(), 0.0);
      left_needed[static_cast<size_t>(i - first_i)] = 1;
      if (!kernel.symmetric() || i != j) right_needed[static_cast<size_t>(j - first_j)] = 1;
    }
    const auto lease = pool.take();
    Scratch& scratch = *lease;
    for (int pass = 0; pass < passes; pass++)
      for (int64_t from = 0; from < layout.dense; from += block<T>) {
        const int64_t to = std::min<int64_t>(layout.dense, from + block<T>);
        for (size_t k = 0; k < left_needed.size(); k++) {
          const auto t = static_cast<int64_t>(k);
          if (left_needed[k]) left.load_rows(first_i + t, from, to, pass, scratch.left<T>(t));
          if (right_needed[k]) right.load_rows(first_j + t, from, to, pass, scratch.right<T>(t));
        }
        for (const auto& [i, j] : tiles) {
          add_product(scratch.left<T>(i - first_i), scratch.right<T>(j - first_j), rows, columns,
                      kernel.symmetric() && i == j, scratch, kernel.tile(i, j));
        }
      }
    for (const auto& [i, j] : tiles) {
      double* const tile = kernel.tile(i, j);
      if (!layout.layers.empty()) add_layers(how, left, right, i, j, rows, columns, scratch, tile);
      if (how.trace)
        for (int64_t k = 0; k < kernel.tile_elements(); k++) tile[k] /= static_cast<double>(layout.classes);
      if (kernel.symmetric() && i == j)
        for (int64_t c = 0; c < columns; c++)
          for (int64_t r = c + 1; r < rows; r++) tile[r * rows + c] = tile[c * rows + r];
    }
  });
}

}  // namespace

NtkKernel::NtkKernel(int64_t rows, int64_t columns)
    : row_tiling_(tiling_of(rows)), column_tiling_(tiling_of(columns ? columns : rows)) {
  if (!columns) {
    half_.emplace(rows);
    return;
  }
  full_ = Buffer(sizeof(double) * static_cast<size_t>(row_tiling_.padded() * column_tiling_.padded()));
  std::fill_n(full_.as<double>(), row_tiling_.padded() * column_tiling_.padded(), 0.0);
}

double* NtkKernel::tile(int64_t i, int64_t j) {
  return half_ ? half_->tile(i, j) : full_.as<double>() + (i * column_tiling_.count + j) * tile_elements();
}

int64_t NtkKernel::tiles() const {
  return half_ ? lower_tiles(row_tiling_.count) : row_tiling_.count * column_tiling_.count;
}

int64_t NtkKernel::index_of(int64_t i, int64_t j) const {
  return half_ ? i * (i + 1) / 2 + j : i * column_tiling_.count + j;
}

Tensor NtkKernel::dense_rows(int64_t from, int64_t to) const {
  require(0 <= from && from <= to && to <= rows(), "rows {} to {} of a kernel with {}", from, to, rows());
  Tensor out({to - from, columns()}, DType::float64);
  double* const y = out.mutable_data<double>();
  const int64_t height = row_tiling_.extent, width = column_tiling_.extent;
  parallel_ranges(to - from, 16, [&](int64_t first, int64_t last) {
    for (int64_t r = from + first; r < from + last; r++)
      for (int64_t c = 0; c < columns(); c++) {
        const bool below = !half_ || r / height >= c / width;
        const int64_t row = below ? r : c, column = below ? c : r;
        y[(r - from) * columns() + c] = tile(row / height, column / width)[column % width * height + row % height];
      }
  });
  return out;
}

double NtkKernel::trace() const {
  const int64_t height = row_tiling_.extent, width = column_tiling_.extent;
  double sum = 0;
  for (int64_t r = 0; r < std::min(rows(), columns()); r++)
    sum += tile(r / height, r / width)[r % width * height + r % height];
  return sum;
}

const SymmetricMatrix& NtkKernel::matrix() const {
  require(half_.has_value(), "a kernel between two sets is no symmetric matrix");
  return *half_;
}
SymmetricMatrix& NtkKernel::matrix() {
  require(half_.has_value(), "a kernel between two sets is no symmetric matrix");
  return *half_;
}

void fill_tiles(const KernelRows& how, const TileRows& a, const TileRows& b,
                const std::function<bool(int64_t i, int64_t j)>& wanted, NtkKernel& kernel) {
  if (a.data.rows.device() != Device::cpu)
    fill_tiles_on_device(how, a, b, wanted, kernel);
  else if (how.products == DType::float32)
    fill<float>(how, a, b, wanted, kernel);
  else
    fill<double>(how, a, b, wanted, kernel);
}

}  // namespace fastntk
