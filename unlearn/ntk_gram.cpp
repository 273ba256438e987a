// JᵀJ of a primal plan: sums over samples, which ranks can share and interruptions do not lose.
#include <algorithm>
#include <deque>

#include "engine/progress.h"
#include "unlearn/ntk.h"

namespace fastntk {
namespace {

constexpr double snapshot_seconds = 15;

}  // namespace

void NtkComputation::check_primal(const Tensor& targets) const {
  require(choice_.plan.representation == NtkRepresentation::primal, "the {} representation has no JᵀJ",
          name_of(choice_.plan.representation));
  const int64_t n = inputs_.extent(0), C = layout_.classes;
  require(!targets.defined() || targets.shape() == Shape({n, C}), "targets of {} samples must be [{}, {}], got {}", n,
          n, C, targets.defined() ? targets.shape().str() : "");
}

// The sums over samples [first, last), from where the file, if any, has them on.
GramAccumulator NtkComputation::sum_over(SampleRange samples, const Tensor& targets, SumsFile* file) {
  GramAccumulator sums(subset_.size(), targets.defined() ? 1 : 0, model_.device());
  int64_t first = file ? file->next_sample() : samples.first;
  if (first > samples.first) file->load(sums);
  resumed_ += first - samples.first;
  std::optional<Progress> shown;
  if (!options_.title.empty()) {
    shown.emplace(options_.title, samples.size(), "samples");
    if (first > samples.first) shown->advance(first - samples.first);
  }
  NtkRows part;
  Stopwatch since;
  double pause = snapshot_seconds;
  while (first < samples.last) {
    check_interrupt();
    const int64_t last = std::min(samples.last, first + problem_.sweep_samples);
    if (!part.rows.defined())
      part.rows = Tensor({last - first, layout_.classes, subset_.size()}, inputs_.dtype(), model_.device());
    compute_rows(model_, layout_, inputs_, first, last, sweeps_, part);
    sums.add(part.rows.slice(0, 0, last - first), targets.defined() ? targets.slice(0, first, last) : Tensor());
    if (shown) shown->advance(last - first);
    first = last;
    if (file && first < samples.last && (options_.on_step || since.seconds() > pause)) {
      since = {};
      file->save(sums, first);
      pause = std::max(snapshot_seconds, 10 * since.seconds());
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
  const std::string which = key("primal 2", targets);
  const std::vector<Rank> ranks = ranks_beside(path);
  if (ranks.empty()) {
    SumsFile file(path, which, 0, n);
    return sum_over({0, n}, targets, &file).finish();
  }
  std::deque<SumsFile> parts;
  for (const Rank& rank : ranks) {
    const auto [first, last] = rank.part_of(n);
    const SumsFile& part = parts.emplace_back(file_of_rank(path, rank), which, first, last);
    require_own(!part.foreign(), part.path(), "sums");
    of_ranks_.push_back(part.path());
  }
  for (SumsFile& part : parts) complete(part, targets);
  GramAccumulator sums(subset_.size(), targets.defined() ? 1 : 0, model_.device());
  for (const SumsFile& part : parts) part.add_to(sums);
  return std::move(sums).finish();
}

RankFile NtkComputation::gram_of_rank(const Rank& rank, const Tensor& targets) {
  check_primal(targets);
  const std::string& path = options_.progress;
  require(!path.empty(), "ranks need a progress file, beside which they leave their sums");
  const std::vector<Rank> others = ranks_beside(path);
  require(others.empty() || others[0].count == rank.count,
          "beside {} there are files of {} ranks, this is one of {}; remove those that are not wanted", path,
          std::ssize(others), rank.count);
  resumed_ = 0;
  const auto [first, last] = rank.part_of(inputs_.extent(0));
  SumsFile file(file_of_rank(path, rank), key("primal 2", targets), first, last);
  require_own(!file.foreign(), file.path(), "sums");
  complete(file, targets);
  return {file.path(), first, last};
}

// Adds the samples that the file of a rank lacks.
void NtkComputation::complete(SumsFile& file, const Tensor& targets) {
  if (file_exists(file.path()) && file.next_sample() == file.last()) {
    resumed_ += file.last() - file.first();
    return;
  }
  GramAccumulator sums = sum_over({file.first(), file.last()}, targets, &file);
  sums.close_block();
  file.save(sums, file.last());
}

}  // namespace fastntk
