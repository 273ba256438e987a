#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "datasets/svhn.h"
#include "fuzz/fuzz.h"

namespace {

uint32_t number_at(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class Number>
std::string text_of(Number value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

// Bytes in the format of zlib, in one stored block, which costs next to nothing to make.
std::string stored(std::string_view bytes) {
  const uLong sum =
      adler32(adler32(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size()));
  const auto length = static_cast<uint16_t>(bytes.size());
  return std::string("\x78\x01\x01") + text_of(length) + text_of(static_cast<uint16_t>(~length)) + std::string(bytes) +
         text_of(__builtin_bswap32(static_cast<uint32_t>(sum)));
}

// The arrays of a MATLAB 5 file, each compressed as it must be: no fuzzer finds checksums.
std::string compress_arrays(std::string_view file) {
  constexpr size_t header = 128, tag = 8, largest_block = 65535;
  std::string out(file.substr(0, header));
  for (size_t at = header; at + tag <= file.size();) {
    const size_t length = std::min({size_t{tag} + number_at(file, at + 4), file.size() - at, largest_block});
    const std::string packed = stored(file.substr(at, length));
    out += text_of(uint32_t{15}) + text_of(static_cast<uint32_t>(packed.size())) + packed;
    at += length;
  }
  return out;
}

}  // namespace

// The last byte chooses whether the file is read as it is or with its arrays compressed first.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  if (size == 0) return 0;
  std::string bytes(fastntk::fuzz::text_of(data, size - 1));
  if (data[size - 1] % 2) bytes = compress_arrays(bytes);
  return fastntk::fuzz::check(
      [&] { fastntk::load_svhn_file(file.holding(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())); });
}
