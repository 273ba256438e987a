#include "datasets/image_files.h"

#include <utility>

#include "engine/file.h"
#include "engine/parallel.h"
#include "engine/progress.h"

namespace fastntk {

ImageFiles::ImageFiles(std::vector<std::string> paths) : paths_(std::move(paths)), sizes_(paths_.size()) {
  Progress progress("look at images", count(), "images");
  parallel_ranges(count(), 64, [&](int64_t first, int64_t last) {
    check_interrupt();
    for (int64_t i = first; i < last; i++) {
      const std::string bytes = read_file(path(i));
      sizes_[static_cast<size_t>(i)] = read_image_size(std::as_bytes(std::span(bytes)), path(i));
    }
    progress.advance(last - first);
  });
  for (const ImageSize& size : sizes_)
    if (size.channels == 3) channels_ = 3;
}

ImageSize ImageFiles::size(int64_t index) const {
  const ImageSize& size = sizes_[static_cast<size_t>(index)];
  return {size.height, size.width, channels_};
}

Tensor ImageFiles::decode(int64_t index) const {
  const std::string bytes = read_file(path(index));
  Tensor image = decode_image(std::as_bytes(std::span(bytes)), path(index));
  const ImageSize& size = sizes_[static_cast<size_t>(index)];
  require(image.shape() == Shape{size.height, size.width, size.channels}, "{}: the file changed while it was in use",
          path(index));
  if (size.channels == channels_) return image;
  return image.expand({size.height, size.width, channels_}).contiguous();
}

}  // namespace fastntk
