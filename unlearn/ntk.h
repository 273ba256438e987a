// The empirical neural tangent kernel of a parameter subset, Θ = J J'ᵀ, within a budget of memory, with a plan that
// says beforehand what it will take, and resumable (docs/ntk.md).
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/gram.h"
#include "engine/rank.h"
#include "unlearn/ntk_kernel.h"
#include "unlearn/ntk_plan.h"
#include "unlearn/ntk_progress.h"

namespace fastntk {

struct NtkOptions {
  NtkPurpose purpose = NtkPurpose::block;
  bool elements = false;  ///< also the elements of Θ, beside eigenvalues
  NtkRepresentation representation = NtkRepresentation::automatic;
  /// Bytes that the computation may take beside model and inputs; 0: no limit. On the CPU it changes no bit of Θ.
  size_t memory = 0;
  /// The class average (1/C) Σ_c ⟨J_c, J'_c⟩, one row per sample, in the place of all C × C blocks.
  bool trace = false;
  /// Linear layers used once per sample in factors (unlearn/ntk_rows.h): faster, other rounding.
  bool factored = true;
  /// The type in which rows of float32 are multiplied (KernelRows): float32 is twice as fast and leaves an error of
  /// about 1e-6 of the largest element. Only where elements of Θ are computed.
  DType products = DType::float64;
  int64_t vectors = 0, iterations = 100;  ///< of iterative methods, for the plan (NtkProblem)
  /// A file that remembers what is done, so that a run after an interruption goes on and ends in the same bits; removed
  /// at the end. None if empty; rows then go to no file either.
  std::string progress;
  std::string title;              ///< of the progress lines; none if empty
  std::function<void()> on_step;  ///< called between steps; may throw
};

/// A kernel that is going to be computed. Model and inputs must outlive it.
class NtkComputation {
 public:
  /// Plans. inputs [n, …]; `second` undefined: of one set with itself. UsageError where no plan fits the budget, and
  /// where ranks have left sums of JᵀJ beside the progress file but the plan has no use for them.
  NtkComputation(const Module& model, Subset subset, const Tensor& inputs, const Tensor& second, NtkOptions options);
  const NtkChoice& choice() const { return choice_; }
  const NtkProblem& problem() const { return problem_; }
  /// Θ; for plans that are not primal or matrix-free.
  NtkKernel kernel();
  /// JᵀJ and Jᵀ targets, targets [n, C] or undefined; for primal plans. Where ranks have left sums beside the progress
  /// file, these are added in the order of their numbers, after the missing ones are made: the last bits depend on how
  /// many ranks there are (and on a device on the batches of each). Error where they are of another computation.
  Gram gram(const Tensor& targets = {});
  /// The same over one rank's part of the samples, into a file beside the progress file, for gram() of a computation
  /// that is the same. Goes on where an earlier run of the rank was interrupted.
  RankFile gram_of_rank(const Rank& rank, const Tensor& targets = {});
  /// Tiles, or samples of a primal plan, that earlier runs had left.
  int64_t resumed() const { return resumed_; }
  /// Removes what kernel(), gram() or ranks left for this run: once what was made of it is on the disk.
  void remove_progress() const;

 private:
  /// A hash of all that changes the bits of Θ or JᵀJ, but for what belongs to the representation.
  std::string key(const std::string& representation, const Tensor& targets = {}) const;
  void check_primal(const Tensor& targets) const;
  GramAccumulator sum_over(SampleRange samples, const Tensor& targets, SumsFile* file);
  void complete(SumsFile& file, const Tensor& targets);
  void load(const Tensor& inputs, int64_t tile_from, int64_t tile_to, const Tiling& tiling, int64_t file_offset,
            TileRows& out);
  int64_t row_bytes() const;

  const Module& model_;
  Subset subset_;
  Tensor inputs_, second_;
  NtkOptions options_;
  RowLayout layout_;
  JacobianOptions sweeps_;
  NtkProblem problem_;
  NtkChoice choice_;
  int64_t resumed_ = 0;
  std::vector<std::string> of_ranks_;  // the files that the sums were added from
  std::unique_ptr<ScratchFile> file_;  // of rows
};

/// Θ between two sets of inputs, or of one with itself where `second` is undefined, in one call.
NtkKernel ntk(const Module& model, const Subset& subset, const Tensor& inputs, const Tensor& second = {},
              NtkOptions options = {});

}  // namespace fastntk
