// The decoders behind image_file.h, one per format.
#pragma once
#include <array>
#include <cstddef>
#include <span>
#include <string>

#include "datasets/image_file.h"

namespace fastntk {

/// An image in memory whose header has been read. The C libraries report errors by longjmp into a function that holds
/// no object with a destructor; the message is kept and thrown from outside of it.
class ImageDecoder {
 public:
  virtual ~ImageDecoder() = default;
  virtual ImageSize size() const = 0;
  /// The rows, to height · width · channels bytes. Once only.
  virtual void decode(uint8_t* out) = 0;
};

std::unique_ptr<ImageDecoder> open_png(std::span<const std::byte> bytes, const std::string& path);
std::unique_ptr<ImageDecoder> open_jpeg(std::span<const std::byte> bytes, const std::string& path);

/// Refuses an image that is empty, that has more than 2^28 pixels, or more than `most_pixels`, which is what the bytes
/// of its file can encode.
void check_image_size(const std::string& path, int64_t height, int64_t width, int64_t most_pixels);

}  // namespace fastntk
