#include "datasets/image_file.h"

#include <algorithm>
#include <cctype>
#include <memory>

#include "datasets/image_codec.h"

namespace fastntk {
namespace {

constexpr std::string_view png_magic = "\x89PNG\r\n\x1a\n", jpeg_magic = "\xff\xd8\xff";
constexpr int64_t largest_image = int64_t{1} << 28;

std::unique_ptr<ImageDecoder> open_image(std::span<const std::byte> bytes, const std::string& path) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with(png_magic)) return open_png(bytes, path);
  require(text.starts_with(jpeg_magic), "{}: neither a PNG nor a JPEG image: it begins as neither", path);
  return open_jpeg(bytes, path);
}

}  // namespace

std::string ImageSize::str() const { return fmt::format("{}x{} {}", height, width, channels == 1 ? "grey" : "RGB"); }

void check_image_size(const std::string& path, int64_t height, int64_t width, int64_t most_pixels) {
  require(height > 0 && width > 0, "{}: the image has {}x{} pixels", path, height, width);
  const int64_t pixels = height * width;  // libpng and libjpeg allow 31 and 16 bits each
  require(pixels <= largest_image, "{}: an image of {}x{} pixels; {} can be read", path, height, width, largest_image);
  require(pixels <= most_pixels, "{}: the header promises {}x{} pixels, more than the file can hold (truncated?)", path,
          height, width);
}

ImageSize read_image_size(std::span<const std::byte> bytes, const std::string& path) {
  return open_image(bytes, path)->size();
}

Tensor decode_image(std::span<const std::byte> bytes, const std::string& path) {
  const std::unique_ptr<ImageDecoder> decoder = open_image(bytes, path);
  const ImageSize size = decoder->size();
  Tensor image({size.height, size.width, size.channels}, DType::uint8);
  decoder->decode(image.mutable_data<uint8_t>());
  return image;
}

bool has_image_name(std::string_view path) {
  std::string name(path);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name.ends_with(".png") || name.ends_with(".jpg") || name.ends_with(".jpeg");
}

}  // namespace fastntk
