#include "engine/cpu/gather.h"

#include <algorithm>

#include "engine/cpu/strided.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

// Calls body(offsets, n) for pieces of rows, spread over the threads; an element costs `work` operations.
template <int Operands, class Body>
void for_pieces(const Walk<Operands>& walk, int64_t work, Body&& body) {
  constexpr int64_t grain = 1 << 14;
  const int64_t inner = walk.inner(), rows = walk.rows();
  if (inner == 0 || rows == 0 || work == 0) return;
  if (rows > 1) {
    parallel_ranges(rows, std::max<int64_t>(1, grain / (inner * work)), [&](int64_t from, int64_t to) {
      walk.for_rows(from, to, [&](const std::array<int64_t, Operands>& at) { body(at, inner); });
    });
    return;
  }
  parallel_ranges(inner, std::max<int64_t>(16, grain / work), [&](int64_t from, int64_t to) {
    std::array<int64_t, Operands> at{};
    for (int k = 0; k < Operands; k++) at[static_cast<size_t>(k)] = from * walk.inner_stride(k);
    body(at, to - from);
  });
}

void check(const int64_t* index, int64_t n, int64_t stride, int64_t extent, const char* where) {
  bool good = true;
  for (int64_t r = 0; r < n; r++) good &= static_cast<uint64_t>(index[r * stride]) < static_cast<uint64_t>(extent);
  for (int64_t r = 0; r < n && !good; r++) {
    const int64_t i = index[r * stride];
    require(i >= 0 && i < extent, "{}: the index {} is outside an axis of extent {}", where, i, extent);
  }
}

}  // namespace

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  const int64_t extent = x.extent(axis), step = x.strides()[axis];
  Shape x_strides = x.strides();
  x_strides[axis] = 0;
  const Walk<3> walk(out.shape(), {out.strides(), x_strides, index.strides()});
  const int64_t *const where = index.data<int64_t>(), sy = walk.inner_stride(0), sx = walk.inner_stride(1),
                       si = walk.inner_stride(2);
  for_any(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.data<T>();
    T* const y = out.mutable_data<T>();
    for_pieces(walk, 1, [&](const std::array<int64_t, 3>& at, int64_t n) {
      const int64_t* const i = where + at[2];
      check(i, si == 0 ? 1 : n, si, extent, "gather");
      if (si == 0 && sx == 1 && sy == 1) {  // a whole row
        std::copy_n(in + at[1] + *i * step, n, y + at[0]);
        return;
      }
      for (int64_t r = 0; r < n; r++) y[at[0] + r * sy] = in[at[1] + r * sx + i[r * si] * step];
    });
  });
}

void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  // An item is all that may land on the same places, so items are independent; inside, i ascends.
  const int64_t extent = out.extent(axis), count = x.extent(axis);
  const int64_t step_y = out.strides()[axis], step_x = x.strides()[axis], step_i = index.strides()[axis];
  Shape across = x.shape();
  across[axis] = 1;
  const Walk<3> walk(across, {out.strides(), x.strides(), index.strides()});
  const int64_t *const where = index.data<int64_t>(), sy = walk.inner_stride(0), sx = walk.inner_stride(1),
                       si = walk.inner_stride(2);
  for_floating(x.dtype(), "scatter_add", [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.data<T>();
    T* const y = out.mutable_data<T>();
    for_pieces(walk, count, [&](const std::array<int64_t, 3>& at, int64_t n) {
      for (int64_t i = 0; i < count; i++) {
        const int64_t* const j = where + at[2] + i * step_i;
        const T* const from = in + at[1] + i * step_x;
        check(j, n, si, extent, "scatter_add");
        for (int64_t r = 0; r < n; r++) y[at[0] + r * sy + j[r * si] * step_y] += from[r * sx];
      }
    });
  });
}

}  // namespace fastntk::cpu
