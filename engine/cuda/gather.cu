// Reading and adding along an axis by index, running sums, and orders. Additions to one place are made by one thread,
// in ascending order.
#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"

namespace fastntk::FASTNTK_GPU {
namespace {

void check_indices(const Tensor& index, int64_t extent, const char* where) {
  using Place = unsigned long long;
  const Tensor packed = index.contiguous();
  const int64_t* const in = elements<int64_t>(packed);
  Tensor first = Tensor::full({}, -1, DType::int64, device);  // as an unsigned number the largest
  auto* const place = reinterpret_cast<Place*>(elements_to_write<int64_t>(first));
  for_each(packed.elements(), [=] __device__(int64_t i) {
    if (in[i] < 0 || in[i] >= extent) atomicMin(place, static_cast<Place>(i));
  });
  const int64_t bad = read(elements<int64_t>(first));
  require(bad < 0, "{}: the index {} is outside an axis of extent {}", where, bad < 0 ? 0 : read(in + bad), extent);
}

// The same tensor without the extent of an axis.
Shape without(Shape shape, int axis) {
  shape[axis] = 1;
  return shape;
}

}  // namespace

template <class T>
void gather_typed(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  const T* const in = elements<T>(x);
  const int64_t* const where = elements<int64_t>(index);
  T* const y = elements_to_write<T>(out);
  const int64_t step = x.strides()[axis];
  Shape x_strides = x.strides();
  x_strides[axis] = 0;
  const Places<3> places(out.shape(), {out.strides(), x_strides, index.strides()});
  for_each(out.elements(), [=] __device__(int64_t i) {
    const auto at = places(i);
    y[at.of[0]] = in[at.of[1] + where[at.of[2]] * step];
  });
}

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  check_indices(index, x.extent(axis), "gather");
  for_any(x.dtype(), [&](auto zero) { gather_typed<decltype(zero)>(x, axis, index, out); });
}

template <class T>
void scatter_add_typed(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  const T* const in = elements<T>(x);
  const int64_t* const where = elements<int64_t>(index);
  T* const y = elements_to_write<T>(out);
  const int64_t count = x.extent(axis), step_x = x.strides()[axis], step_y = out.strides()[axis],
                step_i = index.strides()[axis];
  const Shape across = without(x.shape(), axis);
  const Places<3> places(across, {out.strides(), x.strides(), index.strides()});
  for_each(across.elements(), [=] __device__(int64_t i) {
    const auto at = places(i);
    for (int64_t j = 0; j < count; j++)
      y[at.of[0] + where[at.of[2] + j * step_i] * step_y] += in[at.of[1] + j * step_x];
  });
}

void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out) {
  check_indices(index, out.extent(axis), "scatter_add");
  for_floating(x.dtype(), "scatter_add", [&](auto zero) { scatter_add_typed<decltype(zero)>(x, axis, index, out); });
}

template <class T>
void cumsum_typed(const Tensor& x, int axis, bool reverse, Tensor& out) {
  const T* const in = elements<T>(x);
  T* const y = elements_to_write<T>(out);
  const int64_t extent = x.extent(axis), step_x = x.strides()[axis], step_y = out.strides()[axis];
  const Shape across = without(x.shape(), axis);
  const Places<2> places(across, {out.strides(), x.strides()});
  for_each(x.elements() == 0 ? 0 : across.elements(), [=] __device__(int64_t i) {
    const auto at = places(i);
    double sum = 0;
    for (int64_t n = 0; n < extent; n++) {
      const int64_t j = reverse ? extent - 1 - n : n;
      sum += static_cast<double>(in[at.of[1] + j * step_x]);
      y[at.of[0] + j * step_y] = static_cast<T>(sum);
    }
  });
}

void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out) {
  for_floating(x.dtype(), "cumsum", [&](auto zero) { cumsum_typed<decltype(zero)>(x, axis, reverse, out); });
}

// The place of an element in the order is the number of those that come before it.
template <class T>
void argsort_typed(const Tensor& x, int axis, SortOrder order, Tensor& index) {
  const T* const in = elements<T>(x);
  int64_t* const y = elements_to_write<int64_t>(index);
  const int64_t count = index.extent(axis), step_x = x.strides()[axis], step_y = index.strides()[axis];
  const Divisor extent = x.extent(axis);
  const bool descending = order == SortOrder::descending, nan_first = order != SortOrder::ascending;
  const Places<2> places(without(x.shape(), axis), {index.strides(), x.strides()});
  for_each(x.elements(), [=] __device__(int64_t item) {
    const auto at = places(item / extent);
    const int64_t i = item % extent;
    const T v = in[at.of[1] + i * step_x];
    int64_t before = 0;
    for (int64_t j = 0; j < extent.value() && before < count; j++) {
      const T other = in[at.of[1] + j * step_x];
      const bool nan = v != v, other_nan = other != other;
      const bool first = nan != other_nan    ? other_nan == nan_first
                         : nan || other == v ? j < i
                         : descending        ? other > v
                                             : other < v;
      before += first ? 1 : 0;
    }
    if (before < count) y[at.of[0] + before * step_y] = i;
  });
}

void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index) {
  for_any(x.dtype(), [&](auto zero) { argsort_typed<decltype(zero)>(x, axis, order, index); });
}

}  // namespace fastntk::FASTNTK_GPU
