#include "training/augment.h"

#include <algorithm>
#include <cstring>

#include "engine/parallel.h"

namespace fastntk {

Tensor augment(const Tensor& images, const Augmentation& a, const Random& random, uint64_t base) {
  require_usage(a.crop >= 0, "the crop of an augmentation must not be negative, got {}", a.crop);
  if (!a.flip && a.crop == 0) return images;
  require(images.rank() == 4, "augmentation needs images [n, H, W, C], got {}", images.shape().str());
  const Tensor in = images.contiguous();
  Tensor out = Tensor::zeros(in.shape(), in.dtype());
  const int64_t n = in.extent(0), H = in.extent(1), W = in.extent(2), C = in.extent(3);
  for_floating(in.dtype(), "augmentation", [&](auto zero) {
    using T = decltype(zero);
    const T* const from = in.data<T>();
    T* const to = out.mutable_data<T>();
    parallel_for(n, [&](int64_t i) {
      const uint64_t counter = 3 * (base + static_cast<uint64_t>(i));
      const bool flip = a.flip && random.uniform(counter) < 0.5;
      const int64_t dy = random.below(2 * a.crop + 1, counter + 1) - a.crop,
                    dx = random.below(2 * a.crop + 1, counter + 2) - a.crop;
      for (int64_t y = std::max<int64_t>(0, -dy); y < std::min(H, H - dy); y++)
        for (int64_t x = std::max<int64_t>(0, -dx); x < std::min(W, W - dx); x++) {
          const int64_t source = flip ? W - 1 - (x + dx) : x + dx;
          std::memcpy(to + ((i * H + y) * W + x) * C, from + ((i * H + y + dy) * W + source) * C,
                      static_cast<size_t>(C) * sizeof(T));
        }
    });
  });
  return out;
}

}  // namespace fastntk
