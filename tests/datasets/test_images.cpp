// PNG and JPEG images: the pixels that Pillow has, and that nothing damaged is read.
#include <catch2/catch.hpp>
#include <numeric>

#include "datasets/image_file.h"
#include "datasets/refusal.h"
#include "engine/safetensors.h"
#include "file_makers.h"

using namespace fastntk;
using Catch::Matchers::Contains;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string text_of(const Tensor& bytes) {
  const auto* const p = reinterpret_cast<const char*>(bytes.data<uint8_t>());
  return {p, static_cast<size_t>(bytes.elements())};
}

std::vector<uint8_t> ramp(int64_t count) {
  std::vector<uint8_t> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<uint8_t>(i * 37 + i / 7);
  return values;
}

std::string error(const std::string& bytes) {
  return refusal("image", [&](const std::string& path) { decode_image(bytes_of(bytes), path); });
}

}  // namespace

TEST_CASE("pixels are those that Pillow reads", "[images]") {
  const SafeTensors golden =
      SafeTensors::load(std::string(FASTNTK_SOURCE_DIR) + "/tests/golden/golden_images.safetensors");
  int files = 0;
  for (const auto& [name, tensor] : golden.tensors) {
    if (!name.starts_with("file.")) continue;
    INFO(name);
    files++;
    const std::string file = text_of(tensor);
    const Tensor* const expected = golden.find("pixels." + name.substr(5));
    REQUIRE(expected != nullptr);
    const Tensor image = decode_image(bytes_of(file), name);
    REQUIRE(image.shape() == expected->shape());
    CHECK(read_image_size(bytes_of(file), name) == ImageSize{image.extent(0), image.extent(1), image.extent(2)});
    const auto a = image.to_vector<uint8_t>(), b = expected->to_vector<uint8_t>();
    int largest = 0;
    for (size_t i = 0; i < a.size(); i++) largest = std::max(largest, std::abs(a[i] - b[i]));
    // Another version of libjpeg may round otherwise, and inks are rounded twice by Pillow.
    CHECK(largest <= (name.ends_with(".png") ? 0 : 1));
  }
  CHECK(files == 13);
}

TEST_CASE("PNG images of all depths and orders become 8 bits", "[images]") {
  for (const bool interlaced : {false, true}) {
    for (const int64_t channels : {1, 2, 3, 4}) {
      const std::vector<uint8_t> pixels = ramp(11 * 9 * channels);
      const Tensor image = decode_image(bytes_of(png_bytes(pixels, 11, 9, channels, 8, interlaced)), "x");
      const int64_t kept = channels <= 2 ? 1 : 3;
      REQUIRE(image.shape() == Shape{11, 9, kept});
      const auto values = image.to_vector<uint8_t>();
      for (int64_t i = 0; i < 11 * 9; i++)
        for (int64_t c = 0; c < kept; c++)
          CHECK(values[static_cast<size_t>(i * kept + c)] == pixels[static_cast<size_t>(i * channels + c)]);
    }
    // 16 bits: v / 257, rounded. 0x0080 is 0.498 steps, 0x0081 is 0.502, 0xfeff is 254.004.
    const std::vector<uint8_t> wide{0x00, 0x80, 0x00, 0x81, 0xfe, 0xff, 0xff, 0xff};
    CHECK(decode_image(bytes_of(png_bytes(wide, 2, 2, 1, 16, interlaced)), "x").to_vector<uint8_t>() ==
          std::vector<uint8_t>{0, 1, 254, 255});
  }
}

TEST_CASE("JPEG images, progressive too, are close to what was written", "[images]") {
  for (const int64_t channels : {1, 3})
    for (const bool progressive : {false, true}) {
      std::vector<uint8_t> pixels;
      for (int64_t i = 0; i < 40 * 50 * channels; i++) pixels.push_back(static_cast<uint8_t>(i / channels / 50 * 5));
      const Tensor image = decode_image(bytes_of(jpeg_bytes(pixels, 40, 50, channels, 95, progressive)), "x");
      REQUIRE(image.shape() == Shape{40, 50, channels});
      const auto values = image.to_vector<uint8_t>();
      for (size_t i = 0; i < values.size(); i++) REQUIRE(std::abs(values[i] - pixels[i]) <= 6);
    }
}

TEST_CASE("damaged images are refused with one sentence", "[images]") {
  const std::string png = png_bytes(ramp(11 * 9 * 3), 11, 9, 3), jpeg = jpeg_bytes(ramp(40 * 50), 40, 50, 1);
  CHECK(error(png) == "no error");
  CHECK(error(jpeg) == "no error");
  CHECK(error("") == "neither a PNG nor a JPEG image: it begins as neither");
  CHECK(error("GIF89a") == "neither a PNG nor a JPEG image: it begins as neither");
  CHECK(error(png.substr(0, 20)) == "the PNG image is damaged (its data end too early, truncated?)");
  CHECK(error(png.substr(0, png.size() - 13)) == "the PNG image is damaged (its data end too early, truncated?)");
  std::string changed = png;
  changed[60] = static_cast<char>(changed[60] ^ 4);
  CHECK_THAT(error(changed), Contains("the PNG image is damaged ("));
  CHECK_THAT(error(jpeg.substr(0, jpeg.size() / 2)), Contains("the JPEG image is damaged (Premature end"));
  CHECK_THAT(error(jpeg.substr(0, 100)), Contains("the JPEG image is damaged ("));
  // A header that promises 65,500 rows and columns.
  std::string large = jpeg;
  const size_t frame = jpeg.find("\xff\xc0");
  for (const size_t at : {5, 6, 7, 8}) large[frame + at] = static_cast<char>(at % 2 ? 0xff : 0xdc);
  CHECK_THAT(error(large), Contains("an image of 65500x65500 pixels; 268435456 can be read"));
  for (const size_t at : {5, 7}) large[frame + at] = 0x3f;
  CHECK_THAT(error(large), Contains("more than the file can hold (truncated?)"));
  for (size_t size = 0; size < png.size(); size++) CHECK(error(png.substr(0, size)) != "no error");
  for (size_t size = 0; size < jpeg.size() - 2; size++) CHECK(error(jpeg.substr(0, size)) != "no error");
}

TEST_CASE("no change of one byte of an image does harm", "[images]") {
  for (const std::string& good :
       {png_bytes(ramp(7 * 6), 7, 6, 1), png_bytes(ramp(5 * 5 * 4), 5, 5, 4, 8, true),
        jpeg_bytes(ramp(16 * 16 * 3), 16, 16, 3), jpeg_bytes(ramp(16 * 16), 16, 16, 1, 90, true)})
    for (size_t at = 0; at < good.size(); at++) {
      std::string bytes = good;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
      error(bytes);  // checks that whatever is said is one line
    }
}

TEST_CASE("names of images", "[images]") {
  for (const char* const name : {"a.png", "b.JPG", "c/d.jpeg", ".x.PNG"}) CHECK(has_image_name(name));
  for (const char* const name : {"a.gif", "png", "b.jpg.txt", ""}) CHECK_FALSE(has_image_name(name));
}
