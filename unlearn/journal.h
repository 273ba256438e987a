// The journal of a prepared state: what was asked of it, in order, one line of JSON per entry, each bound to all before
// it by a hash.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fastntk {

struct JournalEntry {
  int64_t number = 0;                         ///< 1, 2, …
  std::string kind;                           ///< what was asked for: "forget", "restore", "add", "compact", "purge"
  std::vector<int64_t> ids;                   ///< of the samples that left
  std::vector<int64_t> arrived;               ///< of those that came
  int64_t to = 0;                             ///< "restore": the entry that it went back to
  std::string representation;                 ///< how it was solved, so that it can be done again: "woodbury", "factor"
  std::map<std::string, std::string> hashes;  ///< by name: of weights, of files, of samples
  std::string hash;                           ///< SHA-256 of the hash before it (empty at first) and of this entry
};

/// An append-only file with one writer. An entry counts from the moment append() returns; before that the file holds
/// it whole or not at all: a last line without its end was never acknowledged, and is left out when the journal is read
/// and cut off by the next append(). Anything else that does not fit (a line that is not an entry, a number out of
/// order, a hash that differs) is an Error naming file and line.
///
/// How far entries were acknowledged stands in a second file, PATH.head: number and hash of the last one, replaced
/// after every append. A journal that ends before that has lost something, which is an Error. What is lost by one who
/// puts older copies of both files back cannot be seen in them: compare last_hash() with a record kept elsewhere.
class Journal {
 public:
  enum class Access : uint8_t { read, write };
  /// Opens the journal, for writing also a new one. Error when another process has it open for writing and this one
  /// wants to.
  explicit Journal(std::string path, Access access = Access::read);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::vector<JournalEntry>& entries() const { return entries_; }
  /// The hash of the last entry, empty if there is none.
  std::string last_hash() const { return entries_.empty() ? std::string() : entries_.back().hash; }
  /// Gives the entry its number and hash, writes it and waits until it is on the disk. After an Error the journal is as
  /// it was before, unless it is_uncertain().
  const JournalEntry& append(JournalEntry entry);
  /// After an Error of append(): it could not be taken back, and may count for the next who reads.
  bool is_uncertain() const { return uncertain_; }

 private:
  void read();
  void check_head(const std::string& head) const;

  std::string path_;
  Access access_;
  int descriptor_ = -1;
  int64_t end_ = 0;  // of the last whole line
  bool uncertain_ = false;
  std::vector<JournalEntry> entries_;
};

}  // namespace fastntk
