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

void require_own(bool own, const std::string& path, const char* what) {
  require(own,
          "{} has {} of another model, other samples or settings, or of another processor or version of this program; "
          "remove it, or run the command that it is of",
          path, what);
}

SumsFile::SumsFile(std::string path, const std::string& key, int64_t first, int64_t last)
    : path_(std::move(path)),
      start_(fmt::format("fastntk sums 1\n{} {} {}\n", key, first, last)),
      first_(first),
      last_(last),
      next_(first),
      lock_(open_locked(path_ + ".lock", path_, O_RDWR)) {
  if (!file_exists(path_)) return;
  try {
    const InputFile file(path_);
    std::string start(std::min(start_.size(), static_cast<size_t>(file.size())), '\0');
    file.read(0, std::as_writable_bytes(std::span(start)));
    if (start != start_) {
      foreign_ = true;
      return;
    }
    Head head{};
    file.read(static_cast<int64_t>(start_.size()), as_bytes_of(head));
    next_ = head.next;
    require(first <= next_ && next_ <= last &&
                static_cast<uint64_t>(file.size()) == start_.size() + sizeof head + head.bytes + sizeof(uint64_t),
            "{} is damaged; remove it", path_);
  } catch (...) {
    unlock();
    throw;
  }
}

SumsFile::~SumsFile() { unlock(); }

void SumsFile::unlock() const {
  unlink((path_ + ".lock").c_str());
  close(lock_);
}

void SumsFile::read_state(const std::function<void(const ReadBytes&)>& use) const {
  const InputFile file(path_);
  auto offset = static_cast<int64_t>(start_.size() + sizeof(Head));
  const auto end = file.size() - static_cast<int64_t>(sizeof(uint64_t));
  uint64_t sum = crc32_z(0, nullptr, 0), expected = 0;
  use([&](std::span<std::byte> bytes) {
    require(std::ssize(bytes) <= end - offset, "{} is damaged; remove it", path_);
    file.read(offset, bytes);
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
    offset += std::ssize(bytes);
  });
  file.read(end, as_bytes_of(expected));
  require(offset == end && sum == expected, "{} is damaged; remove it", path_);
}

void SumsFile::load(GramAccumulator& sums) const {
  read_state([&](const auto& read) { sums.load_state(read); });
}
void SumsFile::add_to(GramAccumulator& sums) const {
  read_state([&](const auto& read) { sums.add_state(read); });
}

void SumsFile::save(const GramAccumulator& sums, int64_t next_sample) {
  AtomicFile file(path_);
  file.write(start_);
  const Head head{next_sample, sums.state_bytes()};
  file.write(std::as_bytes(std::span(&head, 1)));
  uint64_t sum = crc32_z(0, nullptr, 0);
  sums.save_state([&](std::span<const std::byte> bytes) {
    file.write(bytes);
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  });
  file.write(std::as_bytes(std::span(&sum, 1)));
  file.commit();
  next_ = next_sample, foreign_ = false;
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
