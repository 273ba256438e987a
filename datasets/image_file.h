// JPEG and PNG images as pixels, by libjpeg and libpng.
//
// What the pixels are: one channel if the file is grey, else three (red, green, blue). Palettes are looked up. Alpha
// and transparent colours are dropped, not blended, as Pillow's convert("RGB") does. Grey of 1, 2 or 4 bits is spread
// over 0-255. 16-bit samples are rounded to 8 (v / 257 to the nearest). CMYK and YCCK become RGB as (255 − C)(255 − K)
// / 255, with the inverted inks that Adobe writes. Colour profiles, gamma and the orientation in EXIF data change
// nothing.
//
// Files are read as hostile. A damaged image is an Error, also where a viewer would show what is left of it; so are
// more than 2^28 pixels and more pixels than the bytes of the file can encode, before memory is allocated for them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/tensor.h"

namespace fastntk {

/// The extents of an image; channels is 1 (grey) or 3 (RGB).
struct ImageSize {
  int64_t height = 0, width = 0, channels = 0;
  bool operator==(const ImageSize&) const = default;
  /// "28x28 grey", "480x640 RGB": height first.
  std::string str() const;
};

/// What the header says. `path` stands for the bytes in errors.
ImageSize read_image_size(std::span<const std::byte> bytes, const std::string& path);
/// uint8 [height, width, channels].
Tensor decode_image(std::span<const std::byte> bytes, const std::string& path);

/// True if a file of this name counts as an image in a folder: it ends in .png, .jpg or .jpeg, in capitals or not. What
/// the file is shows in its first bytes.
bool has_image_name(std::string_view path);

}  // namespace fastntk
