#include "datasets/column_planes.h"

#include "engine/parallel.h"

namespace fastntk {

Tensor images_from_column_planes(const uint8_t* planes, int64_t count, int64_t side, int64_t channels) {
  Tensor images({count, side, side, channels}, DType::uint8);
  uint8_t* const to = images.mutable_data<uint8_t>();
  parallel_ranges(count, 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      for (int64_t c = 0; c < channels; c++)
        for (int64_t column = 0; column < side; column++)
          for (int64_t row = 0; row < side; row++)
            to[((i * side + row) * side + column) * channels + c] =
                planes[((i * channels + c) * side + column) * side + row];
  });
  return images;
}

}  // namespace fastntk
