#include "datasets/mat_check.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/file.h"

namespace fastntk {
namespace {

constexpr int64_t file_header = 128, tag_bytes = 8;
constexpr uint32_t type_matrix = 14, type_compressed = 15, type_uint32 = 6;
constexpr uint8_t first_numeric_class = 6, last_numeric_class = 15;  // double … uint64
constexpr int64_t start_bytes = 24;  // of a matrix: its tag, the tag of its flags, the flags

using Start = std::array<std::byte, start_bytes>;

uint32_t number_at(std::span<const std::byte> bytes, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// `start` is the beginning of a matrix that has `length` bytes, its tag included.
void check_matrix(const Start& start, int64_t length, const std::string& path) {
  require(
      length >= start_bytes && number_at(start, 0) == type_matrix && int64_t{number_at(start, 4)} == length - tag_bytes,
      "{}: a part of the file is not an array as long as it says", path);
  require(number_at(start, 8) == type_uint32 && number_at(start, 12) == 8, "{}: an array does not begin with its flags",
          path);
  const auto array_class = static_cast<uint8_t>(start[16]);
  require(array_class >= first_numeric_class && array_class <= last_numeric_class,
          "{}: it holds an array of MATLAB's class {}; numeric arrays (6-15) were expected", path, array_class);
  constexpr std::byte complex{0x08};
  require((start[17] & complex) == std::byte{0}, "{}: it holds an array of complex numbers", path);
}

class Inflater {
 public:
  Inflater() { require(inflateInit(&stream) == Z_OK, "zlib cannot be started"); }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  z_stream stream{};
};

// A compressed matrix in [at, end) of the file.
void check_compressed(const InputFile& file, int64_t at, int64_t end) {
  const std::string& path = file.path();
  Inflater inflater;
  z_stream& z = inflater.stream;
  std::array<std::byte, 1 << 16> in{}, out{};
  Start start{};
  int64_t length = 0;
  for (int status = Z_OK; status != Z_STREAM_END;) {
    if (z.avail_in == 0) {
      const auto piece = std::span(in).first(static_cast<size_t>(std::min<int64_t>(end - at, in.size())));
      require(!piece.empty(), "{}: the compressed data of an array end too early", path);
      file.read(at, piece);
      at += static_cast<int64_t>(piece.size());
      z.next_in = reinterpret_cast<Bytef*>(piece.data());
      z.avail_in = static_cast<uInt>(piece.size());
    }
    z.next_out = reinterpret_cast<Bytef*>(out.data());
    z.avail_out = static_cast<uInt>(out.size());
    status = inflate(&z, Z_NO_FLUSH);
    require(status == Z_OK || status == Z_STREAM_END, "{}: the compressed data of an array are damaged ({})", path,
            z.msg ? z.msg : zError(status));
    const auto got = static_cast<int64_t>(out.size() - z.avail_out);
    if (length < start_bytes) std::copy_n(out.begin(), std::min(got, start_bytes - length), start.begin() + length);
    length += got;
  }
  require(at == end && z.avail_in == 0, "{}: bytes follow the compressed data of an array", path);
  check_matrix(start, length, path);
}

}  // namespace

void check_mat_file(const std::string& path) {
  const InputFile file(path);
  std::array<std::byte, file_header> header{};
  require(file.size() >= file_header, "{}: a MATLAB 5 file begins with {} bytes, this file has {}", path, file_header,
          file.size());
  file.read(0, header);
  require(number_at(header, 124) == 0x4d490100, "{}: not a little-endian MATLAB 5 file: its header does not say so",
          path);
  int64_t at = file_header;
  while (at < file.size()) {
    std::array<std::byte, tag_bytes> tag{};
    require(file.size() - at >= tag_bytes, "{}: the file ends inside the tag of an array (truncated?)", path);
    file.read(at, tag);
    const uint32_t type = number_at(tag, 0);
    const int64_t length = number_at(tag, 4), end = at + tag_bytes + length;
    require(end <= file.size(), "{}: an array should have {} bytes, the file has only {} (truncated?)", path, length,
            file.size() - at - tag_bytes);
    if (type == type_compressed) {
      check_compressed(file, at + tag_bytes, end);
    } else {
      Start start{};
      file.read(at, std::span(start).first(static_cast<size_t>(std::min<int64_t>(end - at, start_bytes))));
      check_matrix(start, end - at, path);
    }
    at = end;
  }
}

}  // namespace fastntk
