// Several runs of one command that share its samples: each a process, on a GPU or a machine of its own.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fastntk {

/// One of several runs: number 0 ≤ number < count.
struct Rank {
  int64_t number = 0, count = 1;
  /// "rank-2-of-4"
  std::string str() const;
  /// Its part [first, last) of `total` things; the parts of all ranks make [0, total), and differ by one at most.
  std::pair<int64_t, int64_t> part_of(int64_t total) const;
};
/// "2/4"; UsageError for any other text, and for more than 2²⁰ ranks.
Rank parse_rank(const std::string& text);

/// What one rank has made: of samples [first, last), in a file.
struct RankFile {
  std::string file;
  int64_t first = 0, last = 0;
};
/// Where a rank leaves what it makes for the run that has `file` and no rank.
std::string file_of_rank(const std::string& file, const Rank& rank);
/// What ranks have left beside the file, in the order of names; also what they were writing as they were killed.
std::vector<std::string> files_of_ranks(const std::string& file);
/// All the ranks of which at least one has left something beside the file; none if nothing is there. Error where
/// the files are of different numbers of ranks.
std::vector<Rank> ranks_beside(const std::string& file);

}  // namespace fastntk
