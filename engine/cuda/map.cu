// Element by element.
#include <array>
#include <limits>
#include <utility>

#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"
#include "engine/kernels/special_functions.h"

namespace fastntk::FASTNTK_GPU {

template <class To, class From>
void copy_typed(const Tensor& source, Tensor& out) {
  const From* const x = elements<From>(source);
  To* const y = elements_to_write<To>(out);
  const Places<2> places(out.shape(), {out.strides(), source.strides()});
  for_each(out.elements(), [=] __device__(int64_t i) {
    const auto at = places(i);
    y[at.of[0]] = static_cast<To>(x[at.of[1]]);
  });
}

void copy(const Tensor& source, Tensor& out) {
  require(source.shape() == out.shape(), "copy: {} into {}", source.shape().str(), out.shape().str());
  for_any(out.dtype(), [&](auto to) {
    for_any(source.dtype(), [&](auto from) { copy_typed<decltype(to), decltype(from)>(source, out); });
  });
}

template <class T>
void fill_typed(Tensor& out, T value) {
  T* const y = elements_to_write<T>(out);
  const Places<1> places(out.shape(), {out.strides()});
  for_each(out.elements(), [=] __device__(int64_t i) { y[places(i).of[0]] = value; });
}

void fill(Tensor& out, double value) {
  for_any(out.dtype(), [&](auto zero) { fill_typed(out, static_cast<decltype(zero)>(value)); });
}

template <UnaryKind kind, class T>
__device__ T of_any_kind(T x, T p) {
  if constexpr (kind < UnaryKind::exp)
    return evaluate<kind>(x, p);
  else
    return special::evaluate_special<kind>(x);
}

template <UnaryKind kind, class T>
void map_unary(double parameter, const Tensor& x, Tensor& out) {
  const T p = static_cast<T>(parameter);
  const T* const in = elements<T>(x);
  T* const y = elements_to_write<T>(out);
  const Places<2> places(out.shape(), {out.strides(), x.strides()});
  for_each(out.elements(), [=] __device__(int64_t i) {
    const auto at = places(i);
    y[at.of[0]] = of_any_kind<kind>(in[at.of[1]], p);
  });
}

template <BinaryKind kind, class T>
void map_binary(const Tensor& a, const Tensor& b, Tensor& out) {
  const T *const pa = elements<T>(a), *const pb = elements<T>(b);
  T* const y = elements_to_write<T>(out);
  const Places<3> places(out.shape(), {out.strides(), a.strides(), b.strides()});
  for_each(out.elements(), [=] __device__(int64_t i) {
    const auto at = places(i);
    y[at.of[0]] = evaluate<kind>(pa[at.of[1]], pb[at.of[2]]);
  });
}

template <class T, size_t... kinds>
constexpr auto unary_maps(std::index_sequence<kinds...>) {
  return std::array{&map_unary<static_cast<UnaryKind>(kinds), T>...};
}
template <class T, size_t... kinds>
constexpr auto binary_maps(std::index_sequence<kinds...>) {
  return std::array{&map_binary<static_cast<BinaryKind>(kinds), T>...};
}

void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) {
  for_floating(x.dtype(), "an element-wise op", [&](auto zero) {
    static constexpr auto maps = unary_maps<decltype(zero)>(std::make_index_sequence<unary_kinds>());
    maps[static_cast<size_t>(kind)](parameter, x, out);
  });
}

void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) {
  require(a.dtype() == b.dtype(), "an element-wise op on {} and {}: the types differ", a.describe(), b.describe());
  for_floating(a.dtype(), "an element-wise op", [&](auto zero) {
    static constexpr auto maps = binary_maps<decltype(zero)>(std::make_index_sequence<binary_kinds>());
    maps[static_cast<size_t>(kind)](a, b, out);
  });
}

template <class T>
int64_t first_non_finite_typed(const Tensor& x) {
  using Place = unsigned long long;
  const Tensor packed = x.contiguous();
  const T* const in = elements<T>(packed);
  Tensor first = Tensor::full({}, -1, DType::int64, device);  // as an unsigned number the largest
  auto* const place = reinterpret_cast<Place*>(elements_to_write<int64_t>(first));
  for_each(x.elements(), [=] __device__(int64_t i) {
    if (!(in[i] - in[i] == T(0))) atomicMin(place, static_cast<Place>(i));  // ∞ − ∞ is NaN
  });
  return read(elements<int64_t>(first));
}

int64_t first_non_finite(const Tensor& x) {
  return for_floating(x.dtype(), "the search for NaN",
                      [&](auto zero) { return first_non_finite_typed<decltype(zero)>(x); });
}

}  // namespace fastntk::FASTNTK_GPU
