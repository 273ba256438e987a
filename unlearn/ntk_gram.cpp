// JᵀJ of a primal plan: sums over samples, which ranks can share and interruptions do not lose.
#include <algorithm>

#include "engine/progress.h"
#include "engine/sha256.h"
#include "unlearn/ntk.h"

namespace fastntk {
namespace {

constexpr double snapshot_seconds = 15;

RankFile part_of_rank(const std::string& file, const Rank& rank, int64_t samples) {
  const auto [first, last] = rank.part_of(samples);
  return {file_of_rank(file, rank), first, last};
}

SumsFile sums_file(const RankFile& part, const std::string& key) {
  return {part.file, fmt::format("{} {} {}\n", key, part.first, part.last)};
}

// The next sample, if there is a file. What another run computed for hours is not overwritten.
std::optional<int64_t> own_progress(const SumsFile& file) {
  const std::optional<int64_t> next = file.next_sample();
  require(
      next || !file_exists(file.path()),
      "{} has sums of another model, other samples or settings, or of another processor or version of this program; "
      "remove it, or run the command that it is of",
      file.path());
  return next;
}

}  // namespace

void NtkComputation::check_primal(const Tensor& targets) const {
  require(choice_.plan.representation == NtkRepresentation::primal, "the {} representation has no JᵀJ",
          name_of(choice_.plan.representation));
  const int64_t n = inputs_.extent(0), C = layout_.classes;
  require(!targets.defined() || targets.shape() == Shape({n, C}), "targets of {} samples must be [{}, {}], got {}", n,
          n, C, targets.defined() ? targets.shape().str() : "");
}

std::string NtkComputation::sums_key(const Tensor& targets) const {
  Sha256 hash;
  hash.add(key("primal 2"));
  hash.add(targets.defined() ? targets.describe() : "no targets");
  if (targets.defined()) hash.add(bytes_of(targets.contiguous()));
  return hash.hex();
}

// The sums over samples [first, last), from where the file has them on.
GramAccumulator NtkComputation::sum_over(SampleRange samples, const Tensor& targets, const SumsFile* file) {
  GramAccumulator sums(subset_.size(), targets.defined() ? 1 : 0, model_.device());
  const std::optional<int64_t> found = file ? file->next_sample() : std::nullopt;
  if (found) file->load(sums);
  int64_t first = found.value_or(samples.first);
  resumed_ += first - samples.first;
  std::optional<Progress> shown;
  if (!options_.title.empty()) {
    shown.emplace(options_.title, samples.size(), "samples");
    if (found) shown->advance(first - samples.first);
  }
  NtkRows part;
  Stopwatch since;
  while (first < samples.last) {
    check_interrupt();
    const int64_t last = std::min(samples.last, first + problem_.sweep_samples);
    if (!part.rows.defined())
      part.rows = Tensor({last - first, layout_.classes, subset_.size()}, inputs_.dtype(), model_.device());
    compute_rows(model_, layout_, inputs_, first, last, sweeps_, part);
    sums.add(part.rows.slice(0, 0, last - first), targets.defined() ? targets.slice(0, first, last) : Tensor());
    if (shown) shown->advance(last - first);
    first = last;
    if (file && first < samples.last && (options_.on_step || since.seconds() > snapshot_seconds)) {
      file->save(sums, first);
      since = {};
    }
    if (options_.on_step) options_.on_step();
  }
  return sums;
}

Gram NtkComputation::gram(const Tensor& targets) {
  check_primal(targets);
  resumed_ = 0;
  const int64_t n = inputs_.extent(0);
  const std::string& path = options_.progress;
  if (path.empty()) return sum_over({0, n}, targets, nullptr).finish();
  const std::string key = sums_key(targets);
  std::vector<RankFile> parts;
  for (const Rank& rank : ranks_beside(path)) parts.push_back(part_of_rank(path, rank, n));
  if (parts.empty()) {
    const SumsFile file = sums_file({path, 0, n}, key);
    return sum_over({0, n}, targets, &file).finish();
  }
  for (const RankFile& part : parts) own_progress(sums_file(part, key));
  for (const RankFile& part : parts) sum_part(part, key, targets);
  GramAccumulator sums(subset_.size(), targets.defined() ? 1 : 0, model_.device());
  for (const RankFile& part : parts) sums_file(part, key).add_to(sums);
  return std::move(sums).finish();
}

RankFile NtkComputation::gram_of_rank(const Rank& rank, const Tensor& targets) {
  check_primal(targets);
  require(!options_.progress.empty(), "ranks need a progress file, beside which they leave their sums");
  resumed_ = 0;
  RankFile part = part_of_rank(options_.progress, rank, inputs_.extent(0));
  sum_part(part, sums_key(targets), targets);
  return part;
}

// Makes what the file of a part lacks.
void NtkComputation::sum_part(const RankFile& part, const std::string& key, const Tensor& targets) {
  const SumsFile file = sums_file(part, key);
  if (own_progress(file) == part.last) {
    resumed_ += part.last - part.first;
    return;
  }
  GramAccumulator sums = sum_over({part.first, part.last}, targets, &file);
  sums.close_block();
  file.save(sums, part.last);
}

}  // namespace fastntk
