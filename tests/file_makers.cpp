#include "file_makers.h"

#include <cstdio>
#include <cstring>

#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

#include "engine/error.h"

using fastntk::require;

std::string png_bytes(const std::vector<uint8_t>& pixels, int64_t height, int64_t width, int64_t channels, int bits,
                      bool interlaced) {
  const std::vector<int> types{PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGBA};
  const auto row = static_cast<size_t>(width * channels * bits / 8);
  require(pixels.size() == row * static_cast<size_t>(height), "{} bytes of pixels", pixels.size());
  std::string out;
  // The default handlers abort, which is what a test that cannot write its file should do.
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &out,
      [](png_structp p, png_bytep data, size_t count) {
        static_cast<std::string*>(png_get_io_ptr(p))->append(reinterpret_cast<const char*>(data), count);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), bits,
               types[static_cast<size_t>(channels - 1)], interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  std::vector<png_bytep> rows;
  for (size_t y = 0; y < static_cast<size_t>(height); y++)
    rows.push_back(const_cast<png_bytep>(pixels.data()) + y * row);
  png_set_rows(png, info, rows.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return out;
}

std::string jpeg_bytes(const std::vector<uint8_t>& pixels, int64_t height, int64_t width, int64_t channels, int quality,
                       bool progressive) {
  jpeg_compress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&jpeg, &bytes, &size);
  jpeg.image_width = static_cast<JDIMENSION>(width);
  jpeg.image_height = static_cast<JDIMENSION>(height);
  jpeg.input_components = static_cast<int>(channels);
  jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, quality, TRUE);
  if (progressive) jpeg_simple_progression(&jpeg);
  jpeg_start_compress(&jpeg, TRUE);
  while (jpeg.next_scanline < jpeg.image_height) {
    JSAMPROW row = const_cast<JSAMPLE*>(pixels.data()) + static_cast<int64_t>(jpeg.next_scanline) * width * channels;
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  std::string out(reinterpret_cast<const char*>(bytes), size);
  jpeg_destroy_compress(&jpeg);
  free(bytes);
  return out;
}

std::string cifar_record(const std::vector<uint8_t>& labels, int start) {
  std::string record(labels.begin(), labels.end());
  for (int c = 0; c < 3; c++)
    for (int p = 0; p < 1024; p++) record += static_cast<char>(start + p + 85 * c);
  return record;
}

namespace {

std::string little_endian(uint32_t value) { return std::string(reinterpret_cast<const char*>(&value), 4); }

// A part of a MATLAB 5 file, padded to 8 bytes.
std::string mat_part(uint32_t type, const std::string& data) {
  return little_endian(type) + little_endian(static_cast<uint32_t>(data.size())) + data +
         std::string(-data.size() % 8, '\0');
}

}  // namespace

std::string mat_header() {
  std::string header = "MATLAB 5.0 MAT-file";
  header.resize(124, ' ');
  return header + std::string("\0\1IM", 4);
}

std::string stl10_images(int64_t count, int start) {
  std::string out;
  for (int64_t i = 0; i < count; i++)
    for (int64_t c = 0; c < 3; c++)
      for (int64_t x = 0; x < 96; x++)
        for (int64_t y = 0; y < 96; y++) out += static_cast<char>(start + i + 85 * c + 3 * x + y);
  return out;
}

std::string mat_array(const std::string& name, const std::vector<int32_t>& dims, int array_class,
                      const std::string& data, bool compressed) {
  constexpr uint32_t int8 = 1, uint8 = 2, int32 = 5, uint32 = 6, float64 = 9, matrix = 14, zipped = 15;
  const std::string flags = little_endian(static_cast<uint32_t>(array_class)) + little_endian(0);
  const std::string extents(reinterpret_cast<const char*>(dims.data()), dims.size() * 4);
  const std::string body = mat_part(uint32, flags) + mat_part(int32, extents) + mat_part(int8, name) +
                           mat_part(array_class == 6 ? float64 : uint8, data);
  std::string array = little_endian(matrix) + little_endian(static_cast<uint32_t>(body.size())) + body;
  if (!compressed) return array;
  uLongf size = compressBound(array.size());
  std::string out(size, '\0');
  require(compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(array.data()),
                   array.size()) == Z_OK,
          "zlib");
  out.resize(size);
  return little_endian(zipped) + little_endian(static_cast<uint32_t>(size)) + out;
}

std::string svhn_bytes(int32_t count, bool compressed) {
  std::string pixels;
  for (int32_t i = 0; i < count * 32 * 32 * 3; i++) pixels += static_cast<char>(i * 7 + i / 256);
  std::string digits;
  for (int32_t i = 0; i < count; i++) {
    const double digit = i % 10 + 1;
    digits.append(reinterpret_cast<const char*>(&digit), sizeof digit);
  }
  return mat_header() + mat_array("X", {32, 32, 3, count}, 9, pixels, compressed) +
         mat_array("y", {count, 1}, 6, digits, compressed);
}
