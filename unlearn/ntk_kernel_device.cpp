// The products of a kernel's tiles for rows on another device: there, a block of tiles at a time.
#include <algorithm>

#include "engine/gram.h"
#include "unlearn/ntk_kernel.h"

namespace fastntk {
namespace {

// Rows [first, last) of one side of Θ as rows of J, in columns [from, to); of a class average those of class `pass`.
Tensor rows_of(const KernelRows& how, const TileRows& side, int64_t first, int64_t last, int64_t pass, int64_t from,
               int64_t to) {
  const Tensor& rows = side.data.rows;
  const int64_t offset = side.samples.first * how.per_sample();
  const Tensor all = how.trace ? rows.select(1, pass) : rows.reshape({rows.extent(0) * rows.extent(1), rows.extent(2)});
  return all.slice(0, first - offset, last - offset).slice(1, from, to);
}

// Θ [rows, columns] between rows [first, last) of either side, on the host.
Tensor block_between(const KernelRows& how, const TileRows& a, SampleRange rows, const TileRows& b,
                     SampleRange columns) {
  const RowLayout& layout = *how.layout;
  const int64_t R = how.per_sample(), passes = how.trace ? layout.classes : 1;
  Tensor sum = Tensor::zeros({rows.size(), columns.size()}, DType::float64);
  const auto add = [&](int64_t from, int64_t to, DType products, Tensor& out) {
    for (int64_t pass = 0; pass < passes && from < to; pass++) {
      const Tensor part = dual_gram_on_device(rows_of(how, a, rows.first, rows.last, pass, from, to),
                                              rows_of(how, b, columns.first, columns.last, pass, from, to), products);
      double* const to_add = out.mutable_data<double>();
      const double* const products_of_pass = part.data<double>();
      for (int64_t i = 0; i < out.elements(); i++) to_add[i] += products_of_pass[i];
    }
  };
  add(0, layout.dense, how.products, sum);
  for (const FactoredLayer& layer : layout.layers) {
    Tensor g = Tensor::zeros(sum.shape(), DType::float64);
    add(layer.gradient, layer.gradient + layer.outputs, DType::float64, g);
    const auto inputs = [&](const TileRows& side) {
      return side.data.extra.slice(1, layer.input, layer.input + layer.inputs);
    };
    const Tensor x = dual_gram_on_device(inputs(a), inputs(b));
    double* to = sum.mutable_data<double>();
    const double* of = g.data<double>();
    for (int64_t r = rows.first; r < rows.last; r++) {
      const double* const of_sample = x.data<double>() + (r / R - a.samples.first) * x.extent(1);
      for (int64_t c = columns.first; c < columns.last; c++) *to++ += *of++ * of_sample[c / R - b.samples.first];
    }
  }
  if (how.trace) {
    double* const to = sum.mutable_data<double>();
    for (int64_t i = 0; i < sum.elements(); i++) to[i] /= static_cast<double>(layout.classes);
  }
  return sum;
}

}  // namespace

void fill_tiles_on_device(const KernelRows& how, const TileRows& a, const TileRows& b,
                          const std::function<bool(int64_t i, int64_t j)>& wanted, NtkKernel& kernel) {
  const auto range = [](const TileRows& side, int64_t from, int64_t to) {
    return SampleRange{from * side.tiling.extent, std::min(side.tiling.size, to * side.tiling.extent)};
  };
  const int64_t end = kernel.symmetric() ? std::min(b.to, a.to) : b.to;
  if (b.from >= end) return;
  const SampleRange rows = range(a, a.from, a.to), columns = range(b, b.from, end);
  const Tensor block = block_between(how, a, rows, b, columns);
  const int64_t height = kernel.row_tiling().extent, width = kernel.column_tiling().extent;
  for (int64_t i = a.from; i < a.to; i++)
    for (int64_t j = b.from; j < (kernel.symmetric() ? std::min(end, i + 1) : end); j++) {
      if (!wanted(i, j)) continue;
      double* const tile = kernel.tile(i, j);
      std::fill_n(tile, kernel.tile_elements(), 0.0);
      for (int64_t c = j * width; c < std::min(columns.last, (j + 1) * width); c++)
        for (int64_t r = i * height; r < std::min(rows.last, (i + 1) * height); r++)
          tile[(c - j * width) * height + r - i * height] =
              block.data<double>()[(r - rows.first) * columns.size() + c - columns.first];
      if (kernel.symmetric() && i == j)
        for (int64_t c = 0; c < width; c++)
          for (int64_t r = c + 1; r < height; r++) tile[r * height + c] = tile[c * height + r];
    }
}

}  // namespace fastntk
