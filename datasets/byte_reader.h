// A file's bytes in order, gzip undone where the file is compressed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/file.h"

namespace fastntk {

/// Reads a plain or a gzip file from front to back; which of the two it is shows in its first bytes, not in its name.
class ByteReader {
 public:
  explicit ByteReader(const std::string& path);
  ~ByteReader();
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  const std::string& path() const { return file_.path(); }
  /// Fills `out` and returns the number of bytes, which is smaller only at the end. gzip data that are cut off, damaged
  /// (their checksum is compared at their end) or followed by something else are an Error.
  size_t read(std::span<std::byte> out);
  /// Appends everything that is left.
  void append_rest(std::vector<std::byte>& bytes);
  /// No more bytes than this can come in all. Known before anything is read, so that a header that promises more can be
  /// refused before memory is allocated for it.
  int64_t most_bytes() const;

 private:
  struct Inflater;
  size_t read_compressed(std::span<std::byte> out);

  InputFile file_;
  int64_t at_ = 0;                      // in the file
  std::unique_ptr<Inflater> inflater_;  // null if the file is plain
};

}  // namespace fastntk
