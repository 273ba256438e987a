// Element by element.
#include <algorithm>
#include <array>
#include <utility>

#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"
#include "engine/kernels/special_functions.h"

namespace fastntk::FASTNTK_GPU {

/// An operand of which a thread takes `width` elements: side by side, or one of them again and again.
template <class T, int width>
struct Reader {
  const T* data;
  bool repeated;
  __device__ Pack<T, width> operator()(int64_t at) const {
    if (!repeated) return *reinterpret_cast<const Pack<T, width>*>(data + at);
    Pack<T, width> pack;
    for (T& element : pack.of) element = data[at];
    return pack;
  }
};

/// May `width` elements along the last axis of the places be taken at once, for operand k at `address`?
template <int width, class T, int Operands>
bool in_packs(const Places<Operands>& places, int k, const T* address) {
  const int last = places.axes - 1;
  if (places.extent[last].value() % width != 0) return false;
  if (places.stride[k][last] == 0) return true;
  if (places.stride[k][last] != 1 || !aligned_to_packs<T, width>(address)) return false;
  return std::all_of(places.stride[k], places.stride[k] + last, [](int64_t stride) { return stride % width == 0; });
}

template <int width, class To, class From, class F>
void map_unary_by(const Places<2>& places, int64_t n, To* y, const From* x, F f) {
  const Reader<From, width> read{x, places.stride[1][places.axes - 1] == 0};
  for_each(n / width, [=] __device__(int64_t i) {
    const auto at = places(i * width);
    const auto in = read(at.of[1]);
    Pack<To, width> out;
    for (int k = 0; k < width; k++) out.of[k] = f(in.of[k]);
    *reinterpret_cast<Pack<To, width>*>(y + at.of[0]) = out;
  });
}

// y ← f(x), x with any strides over the shape of y.
template <class To, class From, class F>
void map_unary(const Tensor& x, Tensor& out, F f) {
  const From* const in = elements<From>(x);
  To* const y = elements_to_write<To>(out);
  const Places<2> places(out.shape(), {out.strides(), x.strides()});
  constexpr int width = std::min(pack_width<To>, pack_width<From>);
  if (in_packs<width>(places, 0, y) && in_packs<width>(places, 1, in))
    map_unary_by<width>(places, out.elements(), y, in, f);
  else
    map_unary_by<1>(places, out.elements(), y, in, f);
}

template <int width, class T, class F>
void map_binary_by(const Places<3>& places, int64_t n, T* y, const T* a, const T* b, F f) {
  const int last = places.axes - 1;
  const Reader<T, width> read_a{a, places.stride[1][last] == 0}, read_b{b, places.stride[2][last] == 0};
  for_each(n / width, [=] __device__(int64_t i) {
    const auto at = places(i * width);
    const auto left = read_a(at.of[1]), right = read_b(at.of[2]);
    Pack<T, width> out;
    for (int k = 0; k < width; k++) out.of[k] = f(left.of[k], right.of[k]);
    *reinterpret_cast<Pack<T, width>*>(y + at.of[0]) = out;
  });
}

// y ← f(a, b)
template <class T, class F>
void map_binary(const Tensor& a, const Tensor& b, Tensor& out, F f) {
  const T *const pa = elements<T>(a), *const pb = elements<T>(b);
  T* const y = elements_to_write<T>(out);
  const Places<3> places(out.shape(), {out.strides(), a.strides(), b.strides()});
  constexpr int width = pack_width<T>;
  if (in_packs<width>(places, 0, y) && in_packs<width>(places, 1, pa) && in_packs<width>(places, 2, pb))
    map_binary_by<width>(places, out.elements(), y, pa, pb, f);
  else
    map_binary_by<1>(places, out.elements(), y, pa, pb, f);
}

template <class To, class From>
struct Cast {
  __device__ To operator()(From x) const { return static_cast<To>(x); }
};

void copy(const Tensor& source, Tensor& out) {
  require(source.shape() == out.shape(), "copy: {} into {}", source.shape().str(), out.shape().str());
  for_any(out.dtype(), [&](auto to) {
    for_any(source.dtype(), [&](auto from) {
      using To = decltype(to);
      using From = decltype(from);
      map_unary<To, From>(source, out, Cast<To, From>{});
    });
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
struct Unary {
  T parameter;
  __device__ T operator()(T x) const {
    if constexpr (kind < UnaryKind::exp)
      return evaluate<kind>(x, parameter);
    else
      return special::evaluate_special<kind>(x);
  }
};
template <UnaryKind kind, class T>
void map_kind(double parameter, const Tensor& x, Tensor& out) {
  map_unary<T, T>(x, out, Unary<kind, T>{static_cast<T>(parameter)});
}

template <BinaryKind kind, class T>
struct Binary {
  __device__ T operator()(T a, T b) const { return evaluate<kind>(a, b); }
};
template <BinaryKind kind, class T>
void map_kind(const Tensor& a, const Tensor& b, Tensor& out) {
  map_binary<T>(a, b, out, Binary<kind, T>{});
}

template <class T, size_t... kinds>
constexpr auto unary_maps(std::index_sequence<kinds...>) {
  return std::array{&map_kind<static_cast<UnaryKind>(kinds), T>...};
}
template <class T, size_t... kinds>
constexpr auto binary_maps(std::index_sequence<kinds...>) {
  return std::array{&map_kind<static_cast<BinaryKind>(kinds), T>...};
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
