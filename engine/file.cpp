#include "engine/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/descriptor.h"

namespace fastntk {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read and written without swapping bytes");

// Where the name of an existing file leads once symbolic links are followed.
std::string follow_links(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  return error ? path : target.string();
}

// The partial file, empty and locked.
int open_partial(const std::string& partial, const std::string& path) {
  const int descriptor = open_locked(partial, path, O_WRONLY);
  if (ftruncate(descriptor, 0) == 0) return descriptor;
  const int reason = errno;
  close(descriptor);
  fail("cannot write {}: {}", path, std::strerror(reason));
}

}  // namespace

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // Not blocking, because opening a named pipe would wait for a writer before fstat could tell what it is.
  descriptor_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail("cannot read {}: {}", path_, std::strerror(errno));
  struct stat status {};
  if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(descriptor_);
    fail("cannot read {}: it is {}", path_, S_ISDIR(status.st_mode) ? "a folder" : "not a regular file");
  }
  size_ = status.st_size;
}

InputFile::~InputFile() { close(descriptor_); }

void InputFile::read(int64_t offset, std::span<std::byte> out) const {
  const size_t got = read_at(descriptor_, path_, offset, out);
  if (got < out.size())
    fail("{}: the file ends at byte {}, {} more were expected", path_, offset + static_cast<int64_t>(got),
         out.size() - got);
}

std::string read_file(const std::string& path) {
  const InputFile file(path);
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

bool file_exists(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)), target_(follow_links(path_)), partial_(target_ + ".partial") {
  require_usage(!path_.empty(), "a file to write has no name");
  struct stat status {};
  require(stat(target_.c_str(), &status) != 0 || S_ISREG(status.st_mode),
          "cannot write {}: it exists and is not a regular file", path_);
  descriptor_ = open_partial(partial_, path_);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  unlink(partial_.c_str());
  close(descriptor_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  require(descriptor_ >= 0, "{} is written already", path_);
  write_at(descriptor_, path_, written_, bytes);
  written_ += static_cast<int64_t>(bytes.size());
}

void AtomicFile::commit() {
  require(descriptor_ >= 0, "{} is written already", path_);
  // Some file systems cannot flush and say EINVAL; there is nothing left to do there.
  if (const int reason = try_sync(descriptor_); reason != 0 && reason != EINVAL)
    fail("cannot write {} to the disk: {}", path_, std::strerror(reason));
  if (rename(partial_.c_str(), target_.c_str()) != 0) fail("cannot write {}: {}", path_, std::strerror(errno));
  close(std::exchange(descriptor_, -1));
  sync_folder_of(target_);
}

void check_output(const std::string& path) { const AtomicFile never_committed(path); }

void write_file_atomically(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  require(tensor.is_contiguous(), "the bytes of a tensor were asked for that is not contiguous");
  return for_any(tensor.dtype(), [&](auto zero) {
    return std::as_bytes(std::span(tensor.data<decltype(zero)>(), static_cast<size_t>(tensor.elements())));
  });
}

std::span<std::byte> mutable_bytes_of(Tensor& tensor) {
  require(tensor.is_contiguous(), "the bytes of a tensor were asked for that is not contiguous");
  return for_any(tensor.dtype(), [&](auto zero) {
    return std::as_writable_bytes(
        std::span(tensor.mutable_data<decltype(zero)>(), static_cast<size_t>(tensor.elements())));
  });
}

}  // namespace fastntk
