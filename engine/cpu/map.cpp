#include "engine/cpu/map.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/cpu/isa/map.h"
#include "engine/cpu/strided.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

constexpr int64_t grain = 1 << 14;  // elements a thread takes at a time

// Calls body(offsets, n) for pieces of rows, spread over the threads.
template <int Operands, class Body>
void for_pieces(const Walk<Operands>& walk, Body&& body) {
  const int64_t inner = walk.inner(), rows = walk.rows();
  if (inner == 0 || rows == 0) return;
  if (rows == 1) {
    parallel_ranges(inner, grain, [&](int64_t from, int64_t to) {
      std::array<int64_t, Operands> offset{};
      for (int k = 0; k < Operands; k++) offset[k] = from * walk.inner_stride(k);
      body(offset, to - from);
    });
    return;
  }
  parallel_ranges(rows, std::max<int64_t>(1, grain / inner), [&](int64_t from, int64_t to) {
    walk.for_rows(from, to, [&](const std::array<int64_t, Operands>& offset) { body(offset, inner); });
  });
}

const MapLoops<float>& loops_of(float) { return FASTNTK_DISPATCH(map_table).float32; }
const MapLoops<double>& loops_of(double) { return FASTNTK_DISPATCH(map_table).float64; }

}  // namespace

void copy(const Tensor& source, Tensor& out) {
  require(source.shape() == out.shape(), "copy: {} into {}", source.shape().str(), out.shape().str());
  for_any(out.dtype(), [&](auto to) {
    for_any(source.dtype(), [&](auto from) {
      using To = decltype(to);
      using From = decltype(from);
      const From* const x = source.data<From>();
      To* const y = out.mutable_data<To>();
      const Walk<2> walk(out.shape(), {out.strides(), source.strides()});
      const int64_t sy = walk.inner_stride(0), sx = walk.inner_stride(1);
      for_pieces(walk, [&](const std::array<int64_t, 2>& at, int64_t n) {
        if constexpr (std::is_same_v<To, From>) {
          if (sx == 1 && sy == 1) {
            std::memcpy(y + at[0], x + at[1], static_cast<size_t>(n) * sizeof(To));
            return;
          }
        }
        for (int64_t i = 0; i < n; i++) y[at[0] + i * sy] = static_cast<To>(x[at[1] + i * sx]);
      });
    });
  });
}

void fill(Tensor& out, double value) {
  for_any(out.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* const y = out.mutable_data<T>();
    const Walk<1> walk(out.shape(), {out.strides()});
    const int64_t sy = walk.inner_stride(0);
    for_pieces(walk, [&](const std::array<int64_t, 1>& at, int64_t n) {
      for (int64_t i = 0; i < n; i++) y[at[0] + i * sy] = static_cast<T>(value);
    });
  });
}

void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) {
  for_floating(x.dtype(), "an element-wise op", [&](auto zero) {
    using T = decltype(zero);
    const auto loop = loops_of(zero).unary[static_cast<size_t>(kind)];
    const T* const in = x.data<T>();
    T* const y = out.mutable_data<T>();
    const Walk<2> walk(out.shape(), {out.strides(), x.strides()});
    for_pieces(walk, [&](const std::array<int64_t, 2>& at, int64_t n) {
      loop(n, static_cast<T>(parameter), in + at[1], walk.inner_stride(1), y + at[0]);
    });
  });
}

void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) {
  require(a.dtype() == b.dtype(), "an element-wise op on {} and {}: the types differ", a.describe(), b.describe());
  for_floating(a.dtype(), "an element-wise op", [&](auto zero) {
    using T = decltype(zero);
    const auto loop = loops_of(zero).binary[static_cast<size_t>(kind)];
    const T *const pa = a.data<T>(), *const pb = b.data<T>();
    T* const y = out.mutable_data<T>();
    const Walk<3> walk(out.shape(), {out.strides(), a.strides(), b.strides()});
    for_pieces(walk, [&](const std::array<int64_t, 3>& at, int64_t n) {
      loop(n, pa + at[1], walk.inner_stride(1), pb + at[2], walk.inner_stride(2), y + at[0]);
    });
  });
}

int64_t first_non_finite(const Tensor& x) {
  const Tensor packed = x.contiguous();
  return for_floating(x.dtype(), "the search for NaN", [&](auto zero) -> int64_t {
    const auto* const p = packed.data<decltype(zero)>();
    for (int64_t i = 0; i < packed.elements(); i++)
      if (!std::isfinite(p[i])) return i;
    return -1;
  });
}

}  // namespace fastntk::cpu
