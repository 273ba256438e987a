#include "engine/cpu/softmax.h"

#include <algorithm>

#include "engine/cpu/isa/softmax.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

constexpr int64_t grain = 1 << 12;  // elements a thread takes at a time

const SoftmaxRows<float>& loops_of(float) { return FASTNTK_DISPATCH(softmax_table).float32; }
const SoftmaxRows<double>& loops_of(double) { return FASTNTK_DISPATCH(softmax_table).float64; }

// body(from, to) over pieces of the rows of x.
template <class Body>
void for_rows(const Tensor& x, Body&& body) {
  const int64_t n = x.extent(-1);
  parallel_ranges(x.elements() / n, std::max<int64_t>(1, grain / n), body);
}

}  // namespace

void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out) {
  const Tensor packed = x.contiguous();
  const int64_t n = x.extent(-1), width = out.extent(-1);
  for_floating(x.dtype(), "softmax", [&](auto zero) {
    using T = decltype(zero);
    const auto rows = loops_of(zero).forward[static_cast<size_t>(kind)];
    const T* const in = packed.data<T>();
    T* const y = out.mutable_data<T>();
    for_rows(packed, [&](int64_t from, int64_t to) { rows(to - from, n, in + from * n, y + from * width); });
  });
}

void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out) {
  require(p.dtype() == t.dtype(), "the linear map of softmax: {} at {}", t.describe(), p.describe());
  const Tensor point = p.contiguous(), packed = t.contiguous();
  const int64_t n = t.extent(-1), rows = p.elements() / n;
  for_floating(t.dtype(), "softmax", [&](auto zero) {
    using T = decltype(zero);
    const auto map = loops_of(zero).map[static_cast<size_t>(kind)];
    const T *const at = point.data<T>(), *const in = packed.data<T>();
    T* const y = out.mutable_data<T>();
    for_rows(packed, [&](int64_t from, int64_t to) {
      for (int64_t row = from; row < to; row++) map(n, at + row % rows * n, in + row * n, y + row * n);
    });
  });
}

}  // namespace fastntk::cpu
