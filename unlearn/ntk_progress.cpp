#include "unlearn/ntk_progress.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "engine/descriptor.h"
#include "engine/error.h"
#include "engine/storage.h"

namespace fastntk {
namespace {

constexpr std::string_view magic = "fastntk pieces 1\n";
constexpr int64_t largest_piece = int64_t{1} << 32;

struct PieceHeader {
  int64_t index, bytes;
  uint64_t checksum;
};

uint64_t checksum_of(std::span<const std::byte> bytes) {
  return crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
}

// False where the file ends before.
bool read_whole(int descriptor, const std::string& path, int64_t offset, std::span<std::byte> bytes) {
  return read_at(descriptor, path, offset, bytes) == bytes.size();
}

std::string first_line(const std::string& key) { return std::string(magic) + key + "\n"; }

bool begins_with(int descriptor, const std::string& path, const std::string& start) {
  std::string there(start.size(), '\0');
  return read_whole(descriptor, path, 0, std::as_writable_bytes(std::span(there))) && there == start;
}

template <class T>
std::span<std::byte> as_bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

}  // namespace

PieceFile::PieceFile(std::string path, const std::string& key,
                     const std::function<void(int64_t, std::span<const std::byte>)>& found)
    : path_(std::move(path)) {
  descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail("cannot write {}: {}", path_, std::strerror(errno));
  try {
    lock_for_writing(descriptor_, path_);
    const std::string start = first_line(key);
    int64_t end = 0;
    if (begins_with(descriptor_, path_, start)) {
      struct stat status {};
      if (fstat(descriptor_, &status) != 0) fail("cannot read {}: {}", path_, std::strerror(errno));
      end = static_cast<int64_t>(start.size());
      Buffer piece;
      PieceHeader header{};
      constexpr auto header_bytes = static_cast<int64_t>(sizeof(PieceHeader));
      while (read_whole(descriptor_, path_, end, as_bytes_of(header))) {
        if (header.bytes < 0 || header.bytes > largest_piece || end + header_bytes + header.bytes > status.st_size)
          break;
        const auto bytes = static_cast<size_t>(header.bytes);
        if (piece.bytes() < bytes) piece = Buffer(bytes);
        const std::span<std::byte> content(piece.as<std::byte>(), bytes);
        if (!read_whole(descriptor_, path_, end + header_bytes, content) || checksum_of(content) != header.checksum)
          break;
        found(header.index, content);
        places_.try_emplace(header.index, end);
        end += header_bytes + header.bytes;
      }
    }
    if (ftruncate(descriptor_, end) != 0) fail("cannot write {}: {}", path_, std::strerror(errno));
    if (end == 0) {
      write_at(descriptor_, path_, 0, std::as_bytes(std::span(start)));
      end = static_cast<int64_t>(start.size());
    }
    if (lseek(descriptor_, end, SEEK_SET) < 0) fail("cannot write {}: {}", path_, std::strerror(errno));
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

bool PieceFile::is_there(const std::string& path, const std::string& key) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool same = begins_with(descriptor, path, first_line(key));
  close(descriptor);
  return same;
}

PieceFile::~PieceFile() { close(descriptor_); }

void PieceFile::append(int64_t index, std::span<const std::byte> bytes) {
  PieceHeader header{index, static_cast<int64_t>(bytes.size()), checksum_of(bytes)};
  const int64_t end = lseek(descriptor_, 0, SEEK_CUR);
  places_.try_emplace(index, end);
  write_at(descriptor_, path_, end, as_bytes_of(header));
  write_at(descriptor_, path_, end + static_cast<int64_t>(sizeof header), bytes);
  if (lseek(descriptor_, end + static_cast<int64_t>(sizeof header + bytes.size()), SEEK_SET) < 0)
    fail("cannot write {}: {}", path_, std::strerror(errno));
}

std::vector<std::byte> PieceFile::read(int64_t index) const {
  const auto place = places_.find(index);
  require(place != places_.end(), "{} has no piece {}", path_, index);
  PieceHeader header{};
  std::vector<std::byte> out;
  const bool whole = read_whole(descriptor_, path_, place->second, as_bytes_of(header)) && header.bytes >= 0 &&
                     header.bytes <= largest_piece && [&] {
                       out.resize(static_cast<size_t>(header.bytes));
                       return read_whole(descriptor_, path_, place->second + static_cast<int64_t>(sizeof header), out);
                     }();
  require(whole && header.index == index && checksum_of(out) == header.checksum, "{}: piece {} is damaged", path_,
          index);
  return out;
}

void PieceFile::sync() {
  if (fdatasync(descriptor_) != 0) fail("cannot write {} to the disk: {}", path_, std::strerror(errno));
}

void PieceFile::remove() {
  if (unlink(path_.c_str()) != 0) fail("cannot remove {}: {}", path_, std::strerror(errno));
}

ScratchFile::ScratchFile(const std::string& beside) : path_(beside + ".XXXXXX") {
  descriptor_ = mkstemp(path_.data());
  if (descriptor_ < 0) fail("cannot write a file beside {}: {}", beside, std::strerror(errno));
  unlink(path_.c_str());
}

ScratchFile::~ScratchFile() { close(descriptor_); }

void ScratchFile::write(int64_t offset, std::span<const std::byte> bytes) {
  write_at(descriptor_, path_, offset, bytes);
}

void ScratchFile::read(int64_t offset, std::span<std::byte> bytes) const {
  if (!read_whole(descriptor_, path_, offset, bytes)) fail("{}: a file of rows ends at byte {}", path_, offset);
}

}  // namespace fastntk
