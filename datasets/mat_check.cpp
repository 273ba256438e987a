#include "datasets/mat_check.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "engine/file.h"

namespace fastntk {
namespace {

constexpr int64_t file_header = 128, tag_bytes = 8;
constexpr uint32_t type_int8 = 1, type_int32 = 5, type_uint32 = 6, type_matrix = 14, type_compressed = 15;
constexpr int64_t most_extents = 8, longest_name = 63;
// Tags and contents of what comes before the elements: the matrix, flags, extents, name; and the tag of the elements.
constexpr int64_t start_bytes =
    tag_bytes + (tag_bytes + 8) + (tag_bytes + 4 * most_extents) + (tag_bytes + 64) + tag_bytes;

// Bytes per element of MATLAB's array classes 6 (double) … 15 (uint64), and of its storage types 1 (int8) … 13
// (uint64). An array may be stored in a smaller type than its class.
constexpr uint8_t first_class = 6, last_class = 15;
constexpr std::array<int64_t, 14> bytes_of_type{0, 1, 1, 2, 2, 4, 4, 4, 0, 8, 0, 0, 8, 8};

uint32_t number_at(std::span<const std::byte> bytes, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// Walks over the beginning of an array.
class ArrayStart {
 public:
  ArrayStart(std::span<const std::byte> start, std::string path) : start_(start), path_(std::move(path)) {}

  // `length` bytes in all, the array's own tag included.
  void check(int64_t length) {
    require(static_cast<int64_t>(start_.size()) >= tag_bytes && number_at(start_, 0) == type_matrix &&
                int64_t{number_at(start_, 4)} == length - tag_bytes,
            "{}: a part of the file is not an array as long as it says", path_);
    at_ = tag_bytes;
    const auto flags = part(type_uint32, "flags");
    require(flags.size() == 8, "{}: an array does not begin with its flags", path_);
    const auto array_class = static_cast<uint8_t>(flags[0]);
    require(array_class >= first_class && array_class <= last_class,
            "{}: it holds an array of MATLAB's class {}; numeric arrays (6-15) were expected", path_, array_class);
    constexpr std::byte complex{0x08};
    require((flags[1] & complex) == std::byte{0}, "{}: it holds an array of complex numbers", path_);
    const auto extents = part(type_int32, "extents");
    require(extents.size() % 4 == 0 && extents.size() >= 8 && static_cast<int64_t>(extents.size()) <= 4 * most_extents,
            "{}: an array has {} bytes of extents; 2 to {} extents of 4 bytes were expected", path_, extents.size(),
            most_extents);
    const auto name = part(type_int8, "name");
    require(static_cast<int64_t>(name.size()) <= longest_name, "{}: the name of an array has {} characters", path_,
            name.size());
    int64_t elements = 1;
    for (size_t i = 0; i < extents.size(); i += 4)
      require(!__builtin_mul_overflow(elements, int64_t{number_at(extents, i)}, &elements),
              "{}: an array has too many elements", path_);
    check_elements(elements, length);
  }

 private:
  // Contents of up to 4 bytes may stand in the tag itself, whose upper half is then their length.
  std::span<const std::byte> part(uint32_t type, const char* what) {
    const uint32_t tag = number(at_), small = tag >> 16;
    require((tag & 0xffff) == type && small <= 4, "{}: an array has no {} where they were expected", path_, what);
    const int64_t begin = small ? at_ + 4 : at_ + tag_bytes, size = small ? small : number(at_ + 4);
    require(begin + size <= static_cast<int64_t>(start_.size()), "{}: the {} of an array are longer than they can be",
            path_, what);
    at_ = small ? at_ + tag_bytes : begin + (size + 7) / 8 * 8;
    return start_.subspan(static_cast<size_t>(begin), static_cast<size_t>(size));
  }
  void check_elements(int64_t elements, int64_t length) const {
    const uint32_t tag = number(at_), small = tag >> 16, type = tag & 0xffff;
    const int64_t size = small ? small : number(at_ + 4), width = type < bytes_of_type.size() ? bytes_of_type[type] : 0;
    int64_t expected = 0;
    require(width > 0 && small <= 4 && !__builtin_mul_overflow(elements, width, &expected) && expected == size,
            "{}: an array of {} elements has {} bytes of them", path_, elements, size);
    const int64_t end = small ? at_ + tag_bytes : at_ + tag_bytes + (size + 7) / 8 * 8;
    require(end == length, "{}: an array has {} bytes, its parts have {}", path_, length, end);
  }
  uint32_t number(int64_t at) const {
    require(at + 4 <= static_cast<int64_t>(start_.size()), "{}: an array ends before its elements", path_);
    return number_at(start_, static_cast<size_t>(at));
  }

  std::span<const std::byte> start_;
  std::string path_;
  int64_t at_ = 0;
};

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
  std::array<std::byte, 1 << 14> in, out;
  std::array<std::byte, start_bytes> start{};
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
  ArrayStart(std::span(start).first(static_cast<size_t>(std::min(length, start_bytes))), path).check(length);
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
      std::array<std::byte, start_bytes> bytes{};
      const auto start = std::span(bytes).first(static_cast<size_t>(std::min(end - at, start_bytes)));
      file.read(at, start);
      ArrayStart(start, path).check(end - at);
    }
    at = end;
  }
}

}  // namespace fastntk
