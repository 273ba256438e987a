// Files: read with errors that name path and reason, written so that nothing half-written is ever left under its name.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/tensor.h"

namespace fastntk {

/// A regular file opened for reading. Every failure is an Error that names the path and the reason.
class InputFile {
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  /// Bytes, when it was opened.
  int64_t size() const { return size_; }
  /// Fills `out` from `offset` on; an end of file before that is an error.
  void read(int64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

/// The whole file as it is.
std::string read_file(const std::string& path);
/// True if `path` names a regular file, or a symbolic link to one.
bool file_exists(const std::string& path);

/// Writes a file that appears under its name complete, or not at all: the bytes go to PATH.partial beside it, and
/// commit() makes them durable and renames. Without commit() the destructor removes the partial file; one left behind
/// by a killed process is overwritten by the next writer. Two writers of one path at a time are refused. Where
/// `path` is a symbolic link to a file, that file is replaced and the link stays.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::string& path() const { return path_; }
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Flushes file and folder to the disk and gives the file its name. Nothing can be written afterwards.
  void commit();

 private:
  std::string path_;     // as asked for: what errors name
  std::string target_;   // with symbolic links followed
  std::string partial_;  // where the bytes go until commit()
  int descriptor_ = -1;
  int64_t written_ = 0;
};

/// An Error now, and not after the work, if a file cannot be written to `path`.
void check_output(const std::string& path);
void write_file_atomically(const std::string& path, std::string_view text);

/// The elements of a contiguous tensor in host memory as bytes; little-endian, as every format here wants them.
std::span<const std::byte> bytes_of(const Tensor& tensor);
std::span<std::byte> mutable_bytes_of(Tensor& tensor);

}  // namespace fastntk
