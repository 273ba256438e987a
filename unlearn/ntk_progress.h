// What is already there of a long computation, in a file beside its result.
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/file.h"
#include "engine/gram.h"

namespace fastntk {

/// A file to which pieces are appended, each with its number and a checksum. What a killed process left behind is read
/// up to the first piece that is not whole. Two writers at a time are refused.
class PieceFile {
 public:
  /// Opens or creates. A file of another computation (`key` differs) begins anew. `found` sees every whole piece, in
  /// order; its bytes are valid during the call.
  PieceFile(std::string path, const std::string& key,
            const std::function<void(int64_t index, std::span<const std::byte> bytes)>& found);
  /// Whether there is a file of this computation; one that ends within its first line may be.
  static bool is_there(const std::string& path, const std::string& key);
  ~PieceFile();
  PieceFile(const PieceFile&) = delete;
  PieceFile& operator=(const PieceFile&) = delete;
  void append(int64_t index, std::span<const std::byte> bytes);
  bool has(int64_t index) const { return places_.contains(index); }
  /// The piece of that number, of several the first. Error if it is not there, or damaged since.
  std::vector<std::byte> read(int64_t index) const;
  /// Makes durable what was appended.
  void sync();
  /// The computation is done: removes the file.
  void remove();

 private:
  std::string path_;
  int descriptor_ = -1;
  std::map<int64_t, int64_t> places_;  // of the headers, by number
};

/// What another run computed for hours is not overwritten: Error unless the file at `path`, which has `what`, is `own`.
void require_own(bool own, const std::string& path, const char* what);

/// Sums over samples [first, last), in a file that is replaced as a whole, with a checksum. One process has it, for as
/// long as the object lives; others are refused.
class SumsFile {
 public:
  /// `key` says which sums they are. Error if the file is damaged.
  SumsFile(std::string path, const std::string& key, int64_t first, int64_t last);
  ~SumsFile();
  SumsFile(const SumsFile&) = delete;
  SumsFile& operator=(const SumsFile&) = delete;
  const std::string& path() const { return path_; }
  int64_t first() const { return first_; }
  int64_t last() const { return last_; }
  /// The sample that comes next; `first` where there are no such sums.
  int64_t next_sample() const { return next_; }
  /// Whether there is a file of something else.
  bool foreign() const { return foreign_; }
  /// What the file has in the place of, or added to, what is in `sums`. Error if it is damaged.
  void load(GramAccumulator& sums) const;
  void add_to(GramAccumulator& sums) const;
  void save(const GramAccumulator& sums, int64_t next_sample);

 private:
  struct Head {
    int64_t next;
    uint64_t bytes;  // of the state, which a checksum follows
  };
  void unlock() const;
  void read_state(const std::function<void(const ReadBytes& read)>& use) const;

  std::string path_, start_;  // the first bytes of the file
  int64_t first_, last_, next_;
  bool foreign_ = false;
  int lock_ = -1;
};

/// Bytes on disk that no one else sees: the file loses its name at once, so that nothing stays when the process ends,
/// however it does.
class ScratchFile {
 public:
  /// In the folder of `beside`.
  explicit ScratchFile(const std::string& beside);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  void write(int64_t offset, std::span<const std::byte> bytes);
  void read(int64_t offset, std::span<std::byte> bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
};

}  // namespace fastntk
