#include "engine/cpu/pool.h"

#include <algorithm>

#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

// The part [from, to) of an image's axis that output position `at` covers.
struct Window {
  int64_t from, to;
  Window(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t extent)
      : from(std::max<int64_t>(0, at * stride - padding)), to(std::min(extent, at * stride - padding + kernel)) {}
};
Window rows(const PoolShape& s, int64_t at) {
  return {at, s.stride_height, s.padding_height, s.kernel_height, s.height};
}
Window columns(const PoolShape& s, int64_t at) {
  return {at, s.stride_width, s.padding_width, s.kernel_width, s.width};
}

// Calls body(image, y) for every row of every image, spread over the threads.
template <class Body>
void for_image_rows(int64_t images, int64_t height, int64_t row_work, Body&& body) {
  const int64_t grain = std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, row_work));
  parallel_ranges(images * height, grain, [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; row++) body(row / height, row % height);
  });
}

int64_t images_of(const PoolShape& s, const Tensor& x) {
  const int64_t image = s.height * s.width * s.channels;
  return image ? x.elements() / image : 0;
}

template <class T>
void average(const PoolShape& s, const T* x, T* y, int64_t images) {
  const int64_t C = s.channels;
  const T scale = T(1) / static_cast<T>(s.kernel_height * s.kernel_width);
  for_image_rows(images, s.out_height(), s.out_width() * s.kernel_height * s.kernel_width * C,
                 [&](int64_t image, int64_t oy) {
                   const Window high = rows(s, oy);
                   for (int64_t ox = 0; ox < s.out_width(); ox++) {
                     T* const out = y + ((image * s.out_height() + oy) * s.out_width() + ox) * C;
                     std::fill(out, out + C, T(0));
                     const Window wide = columns(s, ox);
                     for (int64_t iy = high.from; iy < high.to; iy++)
                       for (int64_t ix = wide.from; ix < wide.to; ix++) {
                         const T* const v = x + ((image * s.height + iy) * s.width + ix) * C;
                         for (int64_t c = 0; c < C; c++) out[c] += v[c];
                       }
                     for (int64_t c = 0; c < C; c++) out[c] *= scale;
                   }
                 });
}

template <bool with_position, class T>
void maximum(const PoolShape& s, const T* x, T* y, int64_t* where, int64_t images) {
  const int64_t C = s.channels;
  for_image_rows(images, s.out_height(), s.out_width() * s.kernel_height * s.kernel_width * C,
                 [&](int64_t image, int64_t oy) {
                   const Window high = rows(s, oy);
                   for (int64_t ox = 0; ox < s.out_width(); ox++) {
                     const int64_t place = ((image * s.out_height() + oy) * s.out_width() + ox) * C;
                     T* const best = y + place;
                     const Window wide = columns(s, ox);
                     for (int64_t iy = high.from; iy < high.to; iy++)
                       for (int64_t ix = wide.from; ix < wide.to; ix++) {
                         const T* const v = x + ((image * s.height + iy) * s.width + ix) * C;
                         const bool first = iy == high.from && ix == wide.from;
                         for (int64_t c = 0; c < C; c++) {
                           const bool wins = first || (!(v[c] <= best[c]) && best[c] == best[c]);
                           best[c] = wins ? v[c] : best[c];
                           if constexpr (with_position) where[place + c] = wins ? iy * s.width + ix : where[place + c];
                         }
                       }
                   }
                 });
}

template <class T>
void average_transposed(const PoolShape& s, const T* dy, T* dx, int64_t images) {
  const int64_t C = s.channels;
  const T scale = T(1) / static_cast<T>(s.kernel_height * s.kernel_width);
  for_image_rows(images, s.height, s.width * s.kernel_height * s.kernel_width * C, [&](int64_t image, int64_t iy) {
    T* const out = dx + (image * s.height + iy) * s.width * C;
    std::fill(out, out + s.width * C, T(0));
    // Windows that cover row iy: oy · stride − padding ≤ iy < oy · stride − padding + kernel.
    const int64_t past = iy + s.padding_height - s.kernel_height;
    const int64_t first = past < 0 ? 0 : past / s.stride_height + 1;
    const int64_t last = std::min(s.out_height() - 1, (iy + s.padding_height) / s.stride_height);
    for (int64_t oy = first; oy <= last; oy++)
      for (int64_t ox = 0; ox < s.out_width(); ox++) {
        const T* const v = dy + ((image * s.out_height() + oy) * s.out_width() + ox) * C;
        const Window wide = columns(s, ox);
        for (int64_t ix = wide.from; ix < wide.to; ix++)
          for (int64_t c = 0; c < C; c++) out[ix * C + c] += v[c];
      }
    for (int64_t i = 0; i < s.width * C; i++) out[i] *= scale;
  });
}

}  // namespace

void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where) {
  const Tensor packed = x.contiguous();
  const int64_t images = images_of(shape, x);
  for_floating(x.dtype(), "pooling", [&](auto zero) {
    using T = decltype(zero);
    const T* const in = packed.data<T>();
    T* const y = out.mutable_data<T>();
    if (kind == PoolKind::average)
      average(shape, in, y, images);
    else if (where)
      maximum<true>(shape, in, y, where->mutable_data<int64_t>(), images);
    else
      maximum<false>(shape, in, y, nullptr, images);
  });
}

void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx) {
  const Tensor packed = dy.contiguous();
  for_floating(dy.dtype(), "pooling", [&](auto zero) {
    using T = decltype(zero);
    average_transposed(shape, packed.data<T>(), dx.mutable_data<T>(), images_of(shape, dx));
  });
}

}  // namespace fastntk::cpu
