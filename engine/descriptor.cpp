#include "engine/descriptor.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "engine/error.h"

namespace fastntk {
namespace {

// One system call moves at most 2 GiB.
constexpr size_t largest_transfer = size_t{1} << 30;

template <class Call>
auto uninterrupted(Call&& call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace

void write_at(int descriptor, const std::string& path, int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), largest_transfer);
    const ssize_t put = uninterrupted([&] { return pwrite(descriptor, bytes.data(), count, offset); });
    if (put < 0) fail("cannot write {}: {}", path, std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(put));
    offset += put;
  }
}

size_t read_at(int descriptor, const std::string& path, int64_t offset, std::span<std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t count = std::min(bytes.size() - done, largest_transfer);
    const ssize_t got = uninterrupted(
        [&] { return pread(descriptor, bytes.data() + done, count, offset + static_cast<int64_t>(done)); });
    if (got < 0) fail("cannot read {}: {}", path, std::strerror(errno));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void lock_for_writing(int descriptor, const std::string& path) {
  const int reason = uninterrupted([&] { return flock(descriptor, LOCK_EX | LOCK_NB); }) == 0 ? 0 : errno;
  if (reason == EWOULDBLOCK) fail("cannot write {}: another process is writing it", path);
  if (reason != 0) fail("cannot write {}: {}", path, std::strerror(reason));
}

bool leads_to(const std::string& name, int descriptor) {
  struct stat opened {};
  struct stat named {};
  return fstat(descriptor, &opened) == 0 && stat(name.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

int open_locked(const std::string& name, const std::string& path, int flags) {
  for (;;) {
    const int descriptor = open(name.c_str(), flags | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) fail("cannot write {}: {}", path, std::strerror(errno));
    try {
      lock_for_writing(descriptor, path);
    } catch (...) {
      close(descriptor);
      throw;
    }
    if (leads_to(name, descriptor)) return descriptor;
    close(descriptor);
  }
}

int try_sync(int descriptor) {
  return uninterrupted([&] { return fsync(descriptor); }) == 0 ? 0 : errno;
}

void sync_folder_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  const std::string folder = parent.empty() ? "." : parent;
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail("cannot open the folder {}: {}", folder, std::strerror(errno));
  const int reason = try_sync(descriptor);
  close(descriptor);
  // Some file systems cannot flush a folder and say EINVAL; there is nothing left to do there.
  if (reason != 0 && reason != EINVAL) fail("cannot write {} to the disk: {}", folder, std::strerror(reason));
}

}  // namespace fastntk
