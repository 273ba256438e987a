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

// What the file has of its first bytes, `count` at most.
std::string start_of(int descriptor, const std::string& path, size_t count) {
  std::string there(count, '\0');
  there.resize(read_at(descriptor, path, 0, std::as_writable_bytes(std::span(there))));
  return there;
}

int64_t size_of_file(int descriptor, const std::string& path) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0) fail("cannot read {}: {}", path, std::strerror(errno));
  return status.st_size;
}

template <class T>
std::span<std::byte> as_bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

}  // namespace

PieceFile::PieceFile(std::string path, const std::string& key,
                     const std::function<void(int64_t, std::span<const std::byte>)>& found)
    : path_(std::move(path)) {
  descriptor_ = open_locked(path_, path_, O_RDWR);
  try {
    const std::string start = first_line(key);
    const int64_t size = size_of_file(descriptor_, path_);
    int64_t end = 0;
    if (start_of(descriptor_, path_, start.size()) == start) {
      end = static_cast<int64_t>(start.size());
      Buffer piece;
      PieceHeader header{};
      constexpr auto header_bytes = static_cast<int64_t>(sizeof(PieceHeader));
      while (read_whole(descriptor_, path_, end, as_bytes_of(header))) {
        if (header.bytes < 0 || header.bytes > size - end - header_bytes) break;
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
      sync_folder_of(path_);
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
  const std::string start = first_line(key);
  const bool same = start.starts_with(start_of(descriptor, path, start.size()));
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
  const int64_t begin = place->second + static_cast<int64_t>(sizeof header);
  bool whole = read_whole(descriptor_, path_, place->second, as_bytes_of(header)) && header.bytes >= 0 &&
               header.bytes <= size_of_file(descriptor_, path_) - begin;
  if (whole) {
    out.resize(static_cast<size_t>(header.bytes));
    whole = read_whole(descriptor_, path_, begin, out);
  }
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

std::optional<int64_t> SumsFile::next_sample() const {
  if (!file_exists(path_)) return {};
  const InputFile file(path_);
  if (file.size() < head_bytes()) return {};
  std::string key(key_.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(key)));
  if (key != key_) return {};
  int64_t next = 0;
  file.read(static_cast<int64_t>(key.size()), as_bytes_of(next));
  return next;
}

void SumsFile::require_size(const InputFile& file, const GramAccumulator& sums) const {
  const int64_t expected = head_bytes() + static_cast<int64_t>(sums.state_bytes());
  require(file.size() == expected, "{} is damaged: it has {} bytes, expected {}; remove it", path_, file.size(),
          expected);
}

void SumsFile::load(GramAccumulator& sums) const {
  const InputFile file(path_);
  require_size(file, sums);
  sums.load_state(file, head_bytes());
}

void SumsFile::add_to(GramAccumulator& sums) const {
  const InputFile file(path_);
  require_size(file, sums);
  sums.add_state(file, head_bytes());
}

void SumsFile::save(const GramAccumulator& sums, int64_t next_sample) const {
  AtomicFile file(path_);
  file.write(key_);
  file.write(std::as_bytes(std::span(&next_sample, 1)));
  sums.save_state(file);
  file.commit();
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
