#include "engine/cpu/scan.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/cpu/strided.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

// The lines along one axis, in blocks of neighbours, spread over the threads: body(offsets of the first, how many).
template <int Operands, class Body>
void for_lines(const Shape& shape, int axis, const std::array<Shape, Operands>& strides, int64_t work, Body&& body) {
  constexpr int64_t block = 64, grain = 1 << 15;
  Shape across = shape;
  across[axis] = 1;
  if (shape.elements() == 0) return;
  const Walk<Operands> walk(across, strides);
  const int64_t length = walk.inner(), blocks = (length + block - 1) / block;
  const int64_t cost = std::max<int64_t>(1, work * std::min(length, block));
  parallel_ranges(walk.rows() * blocks, std::max<int64_t>(1, grain / cost), [&](int64_t from, int64_t to) {
    for (int64_t item = from; item < to; item++) {
      const int64_t row = item / blocks, first = item % blocks * block;
      walk.for_rows(row, row + 1, [&](std::array<int64_t, Operands> at) {
        for (int k = 0; k < Operands; k++) at[static_cast<size_t>(k)] += first * walk.inner_stride(k);
        std::array<int64_t, Operands> next{};
        for (int k = 0; k < Operands; k++) next[static_cast<size_t>(k)] = walk.inner_stride(k);
        body(at, next, std::min(block, length - first));
      });
    }
  });
}

}  // namespace

void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out) {
  const int64_t extent = x.extent(axis), step_x = x.strides()[axis], step_y = out.strides()[axis];
  for_floating(x.dtype(), "cumsum", [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.data<T>();
    T* const y = out.mutable_data<T>();
    for_lines<2>(x.shape(), axis, {x.strides(), out.strides()}, extent,
                 [&](const std::array<int64_t, 2>& at, const std::array<int64_t, 2>& next, int64_t lines) {
                   std::vector<double> sum(static_cast<size_t>(lines), 0.0);
                   for (int64_t n = 0; n < extent; n++) {
                     const int64_t i = reverse ? extent - 1 - n : n;
                     for (int64_t c = 0; c < lines; c++) {
                       double& total = sum[static_cast<size_t>(c)];
                       total += static_cast<double>(in[at[0] + i * step_x + c * next[0]]);
                       y[at[1] + i * step_y + c * next[1]] = static_cast<T>(total);
                     }
                   }
                 });
  });
}

void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index) {
  const int64_t extent = x.extent(axis), count = index.extent(axis);
  const int64_t step_x = x.strides()[axis], step_i = index.strides()[axis];
  const bool descending = order == SortOrder::descending, nan_first = order != SortOrder::ascending;
  int64_t* const where = index.mutable_data<int64_t>();
  for_any(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.data<T>();
    for_lines<2>(x.shape(), axis, {x.strides(), index.strides()}, extent,
                 [&](const std::array<int64_t, 2>& at, const std::array<int64_t, 2>& next, int64_t lines) {
                   std::vector<T> value(static_cast<size_t>(extent));
                   std::vector<int64_t> place(value.size());
                   // A total order: equal elements go by their place, which makes every algorithm stable.
                   const auto before = [&](int64_t i, int64_t j) {
                     const T a = value[static_cast<size_t>(i)], b = value[static_cast<size_t>(j)];
                     const bool nan_a = a != a, nan_b = b != b;
                     if (nan_a != nan_b) return nan_a == nan_first;
                     if (nan_a || a == b) return i < j;
                     return descending ? a > b : a < b;
                   };
                   for (int64_t c = 0; c < lines; c++) {
                     for (int64_t i = 0; i < extent; i++)
                       value[static_cast<size_t>(i)] = in[at[0] + i * step_x + c * next[0]];
                     std::iota(place.begin(), place.end(), 0);
                     if (count == 1)
                       place[0] = *std::min_element(place.begin(), place.end(), before);
                     else
                       std::partial_sort(place.begin(), place.begin() + count, place.end(), before);
                     for (int64_t i = 0; i < count; i++)
                       where[at[1] + i * step_i + c * next[1]] = place[static_cast<size_t>(i)];
                   }
                 });
  });
}

}  // namespace fastntk::cpu
