// A prepared state: what a data holder computes once, so that each request to forget is served in a fraction of a
// second and leaves something that others can check (docs/deletion.md).
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "models/checkpoint.h"
#include "unlearn/downdate.h"
#include "unlearn/forget_record.h"
#include "unlearn/jacobian.h"
#include "unlearn/journal.h"
#include "unlearn/prepared_rows.h"
#include "unlearn/row_file.h"

namespace fastntk {

struct PrepareOptions {
  JacobianOptions jacobian;  ///< its `memory` is for all of prepare()
  int64_t crossover = -1;    ///< rows of Woodbury before the factor is made anew; −1: measured
};

struct ForgetOptions {
  bool dry_run = false;       ///< nothing is written or kept
  int64_t most_affected = 0;  ///< how many of the samples whose logits change most to name; it takes all rows to know
  std::vector<std::string> command = {};  ///< what to say in the record
  std::vector<Phase> phases = {};         ///< what went before, such as opening the state
  const SignatureKey* key = nullptr;      ///< to sign the record with
};

/// A state in a folder. Its files are written once; requests add to the journal, weights and records. ρ is fixed
/// when samples leave (the `sum` convention): θ = θ* + θ_lin(D_r) − θ_lin(D) with the squared error, downdated exactly;
/// θ* + θ_newton(D_r) − θ_newton(D) with a loss that has curvature. Neither depends on the order of the requests.
class Prepared {
 public:
  static constexpr int64_t format_version = 2;
  static constexpr int64_t probe_size = 256;

  /// Makes the folder, which must not exist: rows of `samples` at θ* = the subset's values in `model`, streamed to a
  /// file, A, b and θ_lin(D). `metadata` go into the state's model file. theta0 [P] float64; ρ > 0.
  static Prepared prepare(const std::string& folder, const Model& model, std::map<std::string, std::string> metadata,
                          const std::string& subset, const Tensor& theta0, const SampleSource& samples,
                          const std::string& loss, double ridge, const PrepareOptions& options = {});
  /// Checks every file that it reads against its hash. With Access::write no other process can write meanwhile.
  static Prepared open(const std::string& folder, Journal::Access access);

  /// Takes the samples with these ids away. The new weights, the record and then the journal's entry are on the disk
  /// when it returns. UsageError for ids that are not there (any more), repeated, or all that are left.
  ForgetRecord forget(std::vector<int64_t> ids, const ForgetOptions& options = {});

  /// Takes the rows that left since the last factorisation off A and factors, an entry of the journal by itself: the
  /// files of these requests go, and the next request has nothing to carry along. False, and nothing done, if none
  /// left.
  bool compact();

  const std::string& folder() const { return folder_; }
  const std::string& loss() const { return loss_; }
  const Tensor& theta0() const { return theta0_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const Journal& journal() const { return *journal_; }
  double ridge() const { return ridge_; }
  int64_t crossover() const { return crossover_; }
  const Subset& subset() const { return subset_; }
  const std::vector<int64_t>& ids() const { return ids_; }
  const std::vector<int64_t>& labels() const { return labels_; }
  /// Which of ids() remain after entry `entry` of the journal (0: as prepared), ascending positions.
  Positions present_after(int64_t entry) const;
  /// θ after an entry, from its file, whose hash is checked; of entry 0, θ*.
  Tensor theta_after(int64_t entry) const;
  /// Where the record of an entry is.
  std::string record_path(int64_t entry) const;
  /// Those of the state's samples that stand at these positions, in their order, from `samples`, which have at least
  /// these; each is compared with the hash that the state has of it whenever its inputs are made.
  SampleSource in_order(const SampleSource& samples, const Positions& positions) const;
  /// θ after an entry computed anew from the samples present alone, rows, A_r, b_r and factor; of D only θ_lin(D) is
  /// taken from the state. `samples` hold at least these; see in_order().
  struct Recomputed {
    ForgetRecord expected;  ///< what the entry's record must say, but for how the system was solved; nothing of entry 0
    Tensor theta;
    double difference = 0;  ///< ‖θ − theta_after‖ / ‖θ_lin(D_r) − θ0‖
    double bound = 0;       ///< max(1e-8, κ·1e-14)
    double condition = 0, relative_residual = 0;
    double rows_difference = 0;  ///< of the rows drawn from those in the file, over their norm
  };
  struct RecomputeOptions {
    JacobianOptions jacobian;
    /// Compute the rows of this many of the samples, drawn with `seed`, and compare them with the file's, which then
    /// serve for all the rest; −1: compute all.
    int64_t drawn = -1;
    uint64_t seed = 0;
  };
  Recomputed recompute(int64_t entry, const SampleSource& samples) const { return recompute(entry, samples, {}); }
  Recomputed recompute(int64_t entry, const SampleSource& samples, const RecomputeOptions& options) const;

 private:
  Prepared() = default;
  void load_system();
  void take_off(const Positions& leaving, Tensor& b, const std::function<void(const Tensor&)>& see) const;
  std::vector<int64_t> labels_at(const Positions& positions) const;
  Tensor weighted(const Positions& positions, const Tensor& rows) const;
  void find_optimum(const std::vector<bool>& present, const DowndatedSystem& system, ForgetRecord& record) const;
  ForgetRecord outline(int64_t entry, const std::vector<int64_t>& ids, const Positions& retained) const;
  void probe(const Tensor& theta, const std::vector<bool>& present, ForgetRecord& record) const;
  void compare_on_probe(const Tensor& theta, const Positions& kept, const Tensor& inputs, const Tensor& star,
                        const Tensor& predicted, ForgetRecord& record) const;
  LinearisedSet set_of(const Positions& positions, const Tensor& rows) const;
  double linearise_from_file(const Positions& present, const SampleSource& retained, const RecomputeOptions& options,
                             const SeePart& see) const;
  std::vector<SampleChange> most_affected(const Tensor& theta, const Positions& retained, int64_t count) const;

  std::string folder_, first_factor_hash_;
  Checkpoint checkpoint_;
  Subset subset_;
  std::string loss_;
  double ridge_ = 0;
  int64_t crossover_ = 0;
  std::vector<int64_t> ids_, labels_;
  std::unordered_map<int64_t, size_t> position_of_;  // by id
  std::vector<std::string> sample_hashes_;
  Tensor theta0_, theta_star_, theta_;
  // Where A and b are taken: θ0 (squared error), or the optimum on D of the linearised model; its logits there [n, C];
  // and the step x from there to the optimum, (A + ρI) x = b on D.
  Tensor reference_, reference_logits_, optimum_;
  Tensor logits_, b_;  // f(θ*) [n, C]; −∇F at the reference over the present [P]
  Tensor probe_inputs_;
  Positions probe_positions_;
  std::vector<bool> present_;
  std::unique_ptr<DowndatedSystem> system_;
  std::unique_ptr<RowFile> rows_;
  std::unique_ptr<Journal> journal_;
};

}  // namespace fastntk
