// Pooling, a thread for an element of the result.
#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"

namespace fastntk::FASTNTK_GPU {

/// The part [from, to) of an axis of an image that output position `at` covers.
struct Window {
  int64_t from, to;
  __device__ Window(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t extent)
      : from(at * stride < padding ? 0 : at * stride - padding),
        to(at * stride - padding + kernel < extent ? at * stride - padding + kernel : extent) {}
};

/// The output positions [from, to) whose windows cover position `at` of the image.
struct Covering {
  int64_t from, to;
  __device__ Covering(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t outputs)
      : from(at + padding < kernel ? 0 : (at + padding - kernel) / stride + 1),
        to((at + padding) / stride + 1 < outputs ? (at + padding) / stride + 1 : outputs) {}
};

template <PoolKind kind, class T>
void pool_typed(PoolShape s, const Tensor& x, Tensor& out, Tensor* where) {
  const T* const in = elements<T>(x);
  T* const y = elements_to_write<T>(out);
  int64_t* const place = elements_to_write<int64_t>(where);
  const Divisor channels = s.channels, out_height = s.out_height(), out_width = s.out_width();
  for_each(out.elements(), [=] __device__(int64_t i) {
    const int64_t c = i % channels, position = i / channels, row = position / out_width;
    const int64_t ox = position % out_width, oy = row % out_height, image = row / out_height;
    const T* const pixels = in + image * s.height * s.width * s.channels + c;
    const Window high(oy, s.stride_height, s.padding_height, s.kernel_height, s.height);
    const Window wide(ox, s.stride_width, s.padding_width, s.kernel_width, s.width);
    T best = 0;
    int64_t best_at = -1;
    for (int64_t iy = high.from; iy < high.to; iy++)
      for (int64_t ix = wide.from; ix < wide.to; ix++) {
        const T v = pixels[(iy * s.width + ix) * s.channels];
        if constexpr (kind == PoolKind::average) {
          best += v;
        } else if (best_at < 0 || (!(v <= best) && best == best)) {  // a NaN stays one
          best = v;
          best_at = iy * s.width + ix;
        }
      }
    y[i] = kind == PoolKind::average ? best * (T(1) / static_cast<T>(s.kernel_height * s.kernel_width)) : best;
    if (place) place[i] = best_at;
  });
}

void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where) {
  const Tensor packed = x.contiguous();
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    kind == PoolKind::max ? pool_typed<PoolKind::max, T>(shape, packed, out, where)
                          : pool_typed<PoolKind::average, T>(shape, packed, out, where);
  };
  for_floating(x.dtype(), "pooling", run);
}

template <class T>
void average_pool_transposed_typed(PoolShape s, const Tensor& dy, Tensor& dx) {
  const T* const c = elements<T>(dy);
  T* const out = elements_to_write<T>(dx);
  const int64_t out_height = s.out_height(), out_width = s.out_width();
  const Divisor channels = s.channels, height = s.height, width = s.width;
  for_each(dx.elements(), [=] __device__(int64_t i) {
    const int64_t channel = i % channels, position = i / channels, row = position / width;
    const int64_t ix = position % width, iy = row % height, image = row / height;
    const T* const pixels = c + image * out_height * out_width * s.channels + channel;
    const Covering high(iy, s.stride_height, s.padding_height, s.kernel_height, out_height);
    const Covering wide(ix, s.stride_width, s.padding_width, s.kernel_width, out_width);
    T sum = 0;
    for (int64_t oy = high.from; oy < high.to; oy++)
      for (int64_t ox = wide.from; ox < wide.to; ox++) sum += pixels[(oy * out_width + ox) * s.channels];
    out[i] = sum * (T(1) / static_cast<T>(s.kernel_height * s.kernel_width));
  });
}

void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx) {
  const Tensor packed = dy.contiguous();
  for_floating(dy.dtype(), "pooling",
               [&](auto zero) { average_pool_transposed_typed<decltype(zero)>(shape, packed, dx); });
}

}  // namespace fastntk::FASTNTK_GPU
