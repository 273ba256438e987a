#include "engine/rank.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "engine/error.h"
#include "engine/parse_number.h"

namespace fastntk {
namespace {

constexpr int64_t most_ranks = 1 << 20;

// The two numbers around a separator; invalid if there are no two.
Rank rank_in(const std::string& text, const std::string& separator) {
  const size_t at = text.find(separator);
  if (at == std::string::npos) return {-1, 0};
  return {parse_number<int64_t>(text.substr(0, at)).value_or(-1),
          parse_number<int64_t>(text.substr(at + separator.size())).value_or(-1)};
}
bool valid(const Rank& r) { return r.number >= 0 && r.number < r.count && r.count <= most_ranks; }

}  // namespace

std::string Rank::str() const { return fmt::format("rank-{}-of-{}", number, count); }

std::pair<int64_t, int64_t> Rank::part_of(int64_t total) const {
  return {number * total / count, (number + 1) * total / count};
}

Rank parse_rank(const std::string& text) {
  const Rank rank = rank_in(text, "/");
  require_usage(valid(rank), "a rank is K/N with 0 ≤ K < N ≤ {}, such as 0/4 and 3/4, got '{}'", most_ranks, text);
  return rank;
}

std::string file_of_rank(const std::string& file, const Rank& rank) { return file + "." + rank.str(); }

std::vector<std::string> files_of_ranks(const std::string& file) {
  const std::filesystem::path path(file);
  const std::string start = path.filename().string() + ".rank-",
                    folder = path.has_parent_path() ? path.parent_path().string() : ".";
  std::vector<std::string> out;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
    if (entry->path().filename().string().starts_with(start)) out.push_back(entry->path().string());
  require(!error, "cannot list the folder {}: {}", folder, error.message());
  std::ranges::sort(out);
  return out;
}

std::vector<Rank> ranks_beside(const std::string& file) {
  std::set<int64_t> counts;
  const size_t skipped = (std::filesystem::path(file).filename().string() + ".rank-").size();
  for (const std::string& name : files_of_ranks(file))
    if (const Rank rank = rank_in(std::filesystem::path(name).filename().string().substr(skipped), "-of-"); valid(rank))
      counts.insert(rank.count);
  if (counts.empty()) return {};
  require(counts.size() == 1, "beside {} there are files of {} ranks and of {}; remove those that are not wanted", file,
          *counts.begin(), *counts.rbegin());
  std::vector<Rank> out;
  for (int64_t k = 0; k < *counts.begin(); k++) out.push_back({k, *counts.begin()});
  return out;
}

}  // namespace fastntk
