// Small data sets and idx files for the tests.
#pragma once
#include <zlib.h>

#include <string>
#include <vector>

#include "datasets/dataset.h"

/// The bytes of an idx file of unsigned bytes.
inline std::string idx_bytes(const std::vector<uint32_t>& extents, const std::string& data) {
  std::string bytes{0, 0, 8, static_cast<char>(extents.size())};
  for (const uint32_t e : extents)
    for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(e >> shift);
  return bytes + data;
}

/// The same bytes in a gzip file.
inline std::string gzip(const std::string& bytes) {
  z_stream stream{};
  constexpr int gzip_format = 15 + 16;
  fastntk::require(deflateInit2(&stream, 9, Z_DEFLATED, gzip_format, 9, Z_DEFAULT_STRATEGY) == Z_OK, "zlib");
  std::string out(deflateBound(&stream, bytes.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  fastntk::require(deflate(&stream, Z_FINISH) == Z_STREAM_END, "zlib");
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

/// uint8 [N, 2, 3, C] with pixels that tell where they belong; labels i mod classes.
inline fastntk::Dataset small_data(int64_t samples, int64_t classes, int64_t channels = 1) {
  using fastntk::Tensor;
  std::vector<uint8_t> pixels;
  for (int64_t i = 0; i < samples * 6 * channels; i++) pixels.push_back(static_cast<uint8_t>(i * 7 + i / 256));
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < samples; i++) labels.push_back(i % classes);
  return fastntk::Dataset("small", Tensor::from<uint8_t>({samples, 2, 3, channels}, pixels),
                          Tensor::from<int64_t>({samples}, labels), classes);
}
