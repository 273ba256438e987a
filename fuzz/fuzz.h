// What the fuzz targets share.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "engine/error.h"
#include "engine/parallel.h"

namespace fastntk::fuzz {

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

inline std::span<const std::byte> bytes_of(const uint8_t* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

/// A file in memory with a path, for readers that open files themselves. One per program; each input replaces the last.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("fuzz", MFD_CLOEXEC)) {
    if (descriptor_ < 0) std::abort();
    path_ = "/proc/self/fd/" + std::to_string(descriptor_);
  }
  const std::string& holding(const uint8_t* data, size_t size) {
    if (ftruncate(descriptor_, 0) != 0) std::abort();
    if (pwrite(descriptor_, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
    return path_;
  }

 private:
  int descriptor_;
  std::string path_;
};

/// Waking threads would cost more than what they do here.
inline const int thread_counter = (set_thread_count(1), thread_count());

/// Runs a reader, which may refuse its input with an Error of one line and do nothing else.
template <class Read>
int check(const Read& read) {
  try {
    read();
  } catch (const Error& e) {
    const std::string_view what = e.what();
    if (what.empty() || what.find('\n') != std::string_view::npos || what.size() > 2000) std::abort();
  }
  return 0;
}

}  // namespace fastntk::fuzz
