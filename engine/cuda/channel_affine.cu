// The body of batch normalisation.
#include "engine/cuda/families.h"
#include "engine/cuda/reduce.cuh"

namespace fastntk::FASTNTK_GPU {

template <class T>
void channel_affine_typed(const Backend::ChannelAffine& k) {
  const Divisor C = k.x.extent(2), image = k.x.extent(1) * k.x.extent(2);
  const int64_t step = k.a.extent(0) == 1 ? 0 : C.value();
  const T *const x = elements<T>(k.x), *const mean = elements<T>(k.mean), *const a = elements<T>(k.a),
                 *const b = elements<T>(k.b), *const residual = elements<T>(k.residual);
  const bool relu = k.relu;
  T* const y = elements_to_write<T>(k.y);
  for_each(k.x.elements(), [=] __device__(int64_t i) {
    const int64_t c = i % C, at = i / image * step + c;
    T v = (x[i] - mean[c]) * a[at] + b[at];
    if (residual) v += residual[i];
    y[i] = relu ? evaluate<UnaryKind::relu>(v, T(0)) : v;
  });
}

void channel_affine(const Backend::ChannelAffine& arguments) {
  for_floating(arguments.x.dtype(), "batch normalisation",
               [&](auto zero) { channel_affine_typed<decltype(zero)>(arguments); });
}

/// The cotangent where y > 0.
template <class T>
struct Masked {
  const T *cotangent, *y;
  Divisor points;  // elements of y, over which cotangents are stacked
  __device__ T operator()(int64_t i) const { return !y || y[i % points] > T(0) ? cotangent[i] : T(0); }
};

/// Element i of the rows that output o, (stack…, channel), adds up: g, or g (x − mean).
template <class T>
struct ToSum {
  Masked<T> g;
  const T *x, *mean;
  int64_t length;
  Divisor channels;
  __device__ double operator()(int64_t o, int64_t i) const {
    const int64_t c = o % channels, at = (o / channels * length + i) * channels.value() + c;
    const auto v = static_cast<double>(g(at));
    return x ? v * (static_cast<double>(x[at % g.points]) - static_cast<double>(mean[c])) : v;
  }
};

template <class T>
void channel_affine_transposed_typed(const Backend::ChannelAffineTransposed& k) {
  const Shape& s = k.cotangent.shape();
  const int64_t N = s[1], P = s[2];
  const Divisor C = s[3], image = P * s[3], points = N * P * s[3];
  const Masked<T> g{elements<T>(k.cotangent), elements<T>(k.y), points};
  const T *const x = elements<T>(k.x), *const mean = elements<T>(k.mean), *const a = elements<T>(k.a);
  const int64_t step = k.a && k.a->extent(0) != 1 ? s[3] : 0;
  T *const masked = elements_to_write<T>(k.masked), *const dx = elements_to_write<T>(k.dx);
  if (masked || dx)
    for_each(s.elements(), [=] __device__(int64_t i) {
      const T v = g(i);
      if (masked) masked[i] = v;
      if (dx) dx[i] = v * a[i % points / image * step + i % C];
    });
  const auto sum = [&](Tensor* total, const T* at_x) {
    if (!total) return;
    const int64_t length = total->extent(1) == N ? P : N * P;
    reduce<Sum>(Neighbours::across, total->elements(), length, ToSum<T>{g, at_x, mean, length, C},
                StoreAs<T>{elements_to_write<T>(*total)});
  };
  sum(k.sum_g, nullptr);
  sum(k.sum_gx, x);
}

void channel_affine_transposed(const Backend::ChannelAffineTransposed& arguments) {
  for_floating(arguments.cotangent.dtype(), "batch normalisation",
               [&](auto zero) { channel_affine_transposed_typed<decltype(zero)>(arguments); });
}

template <class T>
void channel_affine_transposed_batch_typed(const Backend::ChannelAffineTransposedBatch& k) {
  const Shape& s = k.cotangent.shape();
  const Divisor C = s[3], points = s[1] * s[2] * s[3];
  const Masked<T> g{elements<T>(k.cotangent), elements<T>(k.y), points};
  const T *const x = elements<T>(k.x), *const mean = elements<T>(k.mean), *const a = elements<T>(k.a),
                 *const slope = elements<T>(k.slope), *const constant = elements<T>(k.constant);
  T* const dx = elements_to_write<T>(k.dx);
  for_each(s.elements(), [=] __device__(int64_t i) {
    const int64_t c = i % C, at = i / points * C.value() + c;
    dx[i] = a[c] * g(i) + (slope[at] * (x[i % points] - mean[c]) + constant[at]);
  });
}

void channel_affine_transposed_batch(const Backend::ChannelAffineTransposedBatch& arguments) {
  for_floating(arguments.cotangent.dtype(), "batch normalisation",
               [&](auto zero) { channel_affine_transposed_batch_typed<decltype(zero)>(arguments); });
}

template <class T>
void channel_moments_typed(const Tensor& x, Tensor& mean, Tensor& variance) {
  const int64_t rows = x.extent(0), C = x.extent(1);
  const T* const in = elements<T>(x);
  const Buffer means(static_cast<size_t>(C) * sizeof(double), device);
  auto* const centre = means.as<double>();
  const double weight = 1 / static_cast<double>(rows);
  T *const m = elements_to_write<T>(mean), *const v = elements_to_write<T>(variance);
  reduce<Sum>(
      Neighbours::across, C, rows, [=] __device__(int64_t c, int64_t i) { return static_cast<double>(in[i * C + c]); },
      [=] __device__(int64_t c, double sum) {
        centre[c] = sum * weight;
        m[c] = static_cast<T>(centre[c]);
      });
  reduce<Sum>(
      Neighbours::across, C, rows,
      [=] __device__(int64_t c, int64_t i) {
        const double d = static_cast<double>(in[i * C + c]) - centre[c];
        return d * d;
      },
      [=] __device__(int64_t c, double sum) { v[c] = static_cast<T>(sum * weight); });
}

void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance) {
  for_floating(x.dtype(), "batch normalisation",
               [&](auto zero) { channel_moments_typed<decltype(zero)>(x, mean, variance); });
}

}  // namespace fastntk::FASTNTK_GPU
