// Reading zip archives, by libzip.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace fastntk {

/// A zip archive whose entries are stored without compression, as torch writes them. Others can be listed but not read,
/// so that no entry is larger than the file.
class ZipArchive {
 public:
  struct Entry {
    std::string name;
    int64_t size = 0;
  };

  /// Opens a file.
  explicit ZipArchive(const std::string& path);
  /// An archive in memory, which must live as long; `source` stands for it in errors.
  ZipArchive(std::span<const std::byte> bytes, const std::string& source);

  const std::string& source() const { return source_; }
  /// Bytes of the whole archive.
  int64_t bytes() const { return bytes_; }
  const std::vector<Entry>& entries() const { return entries_; }
  /// The index of the first entry of this name; -1 if there is none.
  int64_t find(const std::string& name) const;
  /// Fills `out`, of the entry's size, and compares the checksum. Error where an entry is compressed, encrypted or
  /// damaged.
  void read(int64_t index, std::span<std::byte> out) const;
  std::vector<std::byte> read(int64_t index) const;

 private:
  void list();

  std::string source_;
  int64_t bytes_ = 0;
  std::unique_ptr<void, void (*)(void*)> archive_;
  std::vector<Entry> entries_;
  std::map<std::string, int64_t> index_;
};

}  // namespace fastntk
