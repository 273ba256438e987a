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
#include "unlearn/jacobian.h"
#include "unlearn/journal.h"
#include "unlearn/phase.h"
#include "unlearn/row_file.h"

namespace fastntk {

/// What one request did. `json()` has two parts: `result`, which follows from state and request, and `measured`.
struct ForgetRecord {
  int64_t entry = 0;  ///< its number in the journal; 0 for a dry run
  std::vector<int64_t> ids;
  std::string samples_sha256;                 ///< of the hashes of the samples forgotten, by id
  std::string retained_sha256;                ///< of the hashes of the samples that remain, by position
  std::string weights_before, weights_after;  ///< SHA-256 of θ, float64
  std::string previous_hash;                  ///< of the journal before this request
  std::string loss, subset;
  double ridge = 0;
  int64_t parameters = 0, classes = 0, n_before = 0, n_after = 0;
  std::string representation;  ///< "woodbury" on the kept factor, or "factor" (anew)
  double relative_residual = 0, condition_bound = 0, smallest_eigenvalue = 1;
  double update_norm = 0;  ///< ‖θ − θ before‖
  /// On the probe: ‖J(θ−θ*)‖, ‖f(θ)−f(θ*)‖, and ‖f(θ) − f_lin(θ)‖ over the first. Zero where nothing is left of it.
  double predicted_change = 0, actual_change = 0, linearisation_error = 0;
  /// Losses with curvature: how the optimum of the linearised model was found (unlearn/linear_optimum.h).
  struct Newton {
    double start_gradient_norm = 0, gradient_norm = 0, distance_bound = 0;
    /// ‖θ with Λ frozen − θ‖ / ‖θ − θ*‖
    double frozen_difference = 0;
    int chord_steps = 0, newton_steps = 0, passes = 0;
  };
  std::optional<Newton> newton;
  /// Which rule of `fastntk unlearn` it is.
  const char* rule() const { return newton ? "newton-shift" : "shift"; }
  std::string advice;  ///< what the linearisation error says about going on
  std::vector<Phase> phases;
  Tensor theta;  ///< [P] float64, the new weights
  std::string json() const;
};

struct PrepareOptions {
  JacobianOptions jacobian;  ///< its `memory` is for all of prepare()
  int64_t crossover = -1;    ///< rows of Woodbury before the factor is made anew; −1: measured
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
                          const std::string& subset, const Tensor& theta0, const Samples& samples,
                          const std::string& loss, double ridge, const PrepareOptions& options = {});
  /// Checks every file that it reads against its hash. With Access::write no other process can write meanwhile.
  static Prepared open(const std::string& folder, Journal::Access access);

  /// Takes the samples with these ids away. The new weights, the record and then the journal's entry are on the disk
  /// when it returns; with `dry_run` nothing is written or kept. UsageError for ids that are not there (any more),
  /// repeated, or all that are left.
  ForgetRecord forget(std::vector<int64_t> ids, bool dry_run = false);

  /// Takes the rows that left since the last factorisation off A and factors, an entry of the journal by itself: the
  /// files of these requests go, and the next request has nothing to carry along. False, and nothing done, if none
  /// left.
  bool compact();

  const std::string& folder() const { return folder_; }
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
  /// θ after an entry computed anew from the samples present alone, rows, A_r, b_r and factor; of D only θ_lin(D) is
  /// taken from the state. `samples` hold at least these; each is compared with the hash that the state has of it.
  struct Recomputed {
    Tensor theta;
    double difference = 0;  ///< ‖θ − theta_after‖ / ‖θ_lin(D_r) − θ0‖
    double bound = 0;       ///< max(1e-8, κ·1e-14)
    double condition = 0, relative_residual = 0;
  };
  Recomputed recompute(int64_t entry, const Samples& samples, const JacobianOptions& options = {}) const;

 private:
  Prepared() = default;
  void load_system();
  void take_off(const Positions& leaving, Tensor& b, const std::function<void(const Tensor&)>& see) const;
  std::vector<int64_t> labels_at(const Positions& positions) const;
  Tensor weighted(const Positions& positions, const Tensor& rows) const;
  void find_optimum(const std::vector<bool>& present, const DowndatedSystem& system, ForgetRecord& record) const;
  void probe(const Tensor& theta, const std::vector<bool>& present, ForgetRecord& record) const;

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
