// A prepared state: what a data holder computes once, so that each request to forget is served in a fraction of a
// second and leaves something that others can check (docs/deletion.md).
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "models/checkpoint.h"
#include "unlearn/downdate.h"
#include "unlearn/jacobian.h"
#include "unlearn/journal.h"
#include "unlearn/prepared_rows.h"
#include "unlearn/relinearise.h"
#include "unlearn/request_record.h"
#include "unlearn/row_file.h"
#include "unlearn/state_table.h"

namespace fastntk {

struct PrepareOptions {
  JacobianOptions jacobian;  ///< its `memory` is for all of prepare()
  int64_t crossover = -1;    ///< rows of Woodbury before the factor is made anew; −1: measured
};

struct RequestOptions {
  bool dry_run = false;       ///< nothing is written or kept
  int64_t most_affected = 0;  ///< how many of the samples whose logits change most to name; it takes all rows to know
  std::vector<std::string> command = {};  ///< what to say in the record
  std::vector<Phase> phases = {};         ///< what went before, such as opening the state
  const SignatureKey* key = nullptr;      ///< to sign the record with
  JacobianOptions jacobian = {};          ///< for the rows of samples that arrive, and of the probe
};

/// A state in a folder. Its files are written once; requests add to the journal, weights and records. ρ is fixed
/// when samples leave or arrive (the `sum` convention): with D' the samples that are there,
/// θ = θ* + θ_lin(D') − θ_lin(D) with the squared error, downdated exactly; θ* + θ_newton(D') − θ_newton(D) with a loss
/// that has curvature. Neither depends on the order of the requests.
class Prepared {
 public:
  static constexpr int64_t format_version = 3;
  static constexpr int64_t probe_size = 256;
  /// Samples of the probe by which matrix_distance is measured.
  static constexpr int64_t matrix_probe_size = 16;

  /// Makes the folder, which must not exist: rows of `samples` at θ* = the subset's values in `model`, streamed to a
  /// file, A, b and θ_lin(D). `metadata` go into the state's model file. theta0 [P] float64; ρ > 0.
  static Prepared prepare(const std::string& folder, const Model& model, std::map<std::string, std::string> metadata,
                          const std::string& subset, const Tensor& theta0, const SampleSource& samples,
                          const std::string& loss, double ridge, const PrepareOptions& options = {});
  /// The rows of one rank, in a file beside the folder, where prepare() with the same arguments finds them: so several
  /// processes, each with a GPU or a machine of its own, share what takes the most time.
  static RankFile prepare_rank(const std::string& folder, const Model& model,
                               std::map<std::string, std::string> metadata, const std::string& subset,
                               const Tensor& theta0, const SampleSource& samples, const std::string& loss,
                               const Rank& rank, const JacobianOptions& options = {});
  /// Checks every file that it reads against its hash. With Access::write no other process can write meanwhile. The
  /// network runs on `device`, which must be the one that the rows were made on.
  static Prepared open(const std::string& folder, Journal::Access access, Device device = Device::cpu);

  // Requests. When one returns, the new weights, the record and then the journal's entry are on the disk. A UsageError
  // changes nothing.

  /// Takes the samples with these ids away. UsageError for ids that are not there (any more), repeated, or all that are
  /// left.
  RequestRecord forget(std::vector<int64_t> ids, const RequestOptions& options = {});
  /// Adds samples that the state has not. Their rows are computed at θ* and stay in a file of their own. UsageError for
  /// ids that are there, or were forgotten and not purged, and labels outside the model's classes.
  RequestRecord add(const SampleSource& samples, const RequestOptions& options = {});
  /// Goes back to the samples that were there after an entry of the journal (0: as prepared). Those that left since
  /// arrive again: `samples` must have them, with the hashes that the state or its journal knows, and their rows are
  /// computed again; rows that the state still has must agree within 1e-5 of their norm, and are taken. UsageError
  /// naming ids that are missing. Those that came since leave.
  RequestRecord restore(int64_t entry, const SampleSource& samples, const RequestOptions& options = {});
  /// Removes what the state keeps of samples that left: their rows, logits, labels, hashes and inputs, A and factors
  /// that had them, and all weights but the present ones. What remains of them is θ*, θ_lin(D), and ids and numbers in
  /// journal and records. Entries before this one cannot be verified or replayed afterwards.
  RequestRecord purge(const RequestOptions& options = {});

  /// Takes the rows that left since the last factorisation off A and factors, an entry of the journal by itself: the
  /// files of these requests go, and the next request has nothing to carry along. False, and nothing done, if none
  /// left.
  bool compact();

  /// A new state in `folder` of the samples that are there, linearised at the present weights after `steps` steps of
  /// relinearise() from them; ρ and θ0 stay. It knows nothing of samples that left. `samples` have at least those that
  /// are there.
  struct Relinearised;
  Relinearised relinearise(const std::string& folder, const SampleSource& samples, int steps,
                           const PrepareOptions& options = {}) const;

  const std::string& folder() const { return folder_; }
  const std::string& loss() const { return loss_; }
  const Tensor& theta0() const { return theta0_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const Journal& journal() const { return *journal_; }
  double ridge() const { return ridge_; }
  int64_t crossover() const { return crossover_; }
  const Subset& subset() const { return subset_; }
  /// All samples that the state knows, there or not.
  const std::vector<int64_t>& ids() const { return table_.ids; }
  const std::vector<int64_t>& labels() const { return table_.labels; }
  /// Where samples with these ids, which it knows, stand in ids().
  Positions positions_of(const std::vector<int64_t>& ids) const;
  /// Positions in ids() of samples that are there now, ascending.
  Positions present() const { return present_after(static_cast<int64_t>(journal_->entries().size())); }
  /// The same after entry `entry` of the journal (0: as prepared). Error where a later entry purged samples of them.
  Positions present_after(int64_t entry) const;
  /// θ after an entry, from its file, whose hash is checked; of entry 0, θ*. Error where it was purged.
  Tensor theta_after(int64_t entry) const;
  /// Where the record of an entry is.
  std::string record_path(int64_t entry) const;
  /// Those of the state's samples that stand at these positions, in their order, from `samples`, which have at least
  /// these; each is compared with the hash that the state has of it whenever its inputs are made. Error naming
  /// those that are missing.
  SampleSource in_order(const SampleSource& samples, const Positions& positions) const;
  /// θ after an entry computed anew from the samples present alone, rows, A_r, b_r and factor; of D only θ_lin(D) is
  /// taken from the state. `samples` hold at least these; see in_order().
  struct Recomputed {
    RequestRecord
        expected;  ///< what the entry's record must say, but for how the system was solved; nothing of entry 0
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
  // Who leaves and who comes, by position.
  struct Change {
    std::string request;
    Positions leaving, arriving;
    int64_t restored_to = 0;
  };

  Prepared() = default;
  void load_system();
  RequestRecord serve(const Change& change, const RequestOptions& options, const std::string& table_hash = "");
  RequestRecord serve_with(StateTable table, std::vector<bool> present, const Change& change,
                           const RequestOptions& options);
  void use(StateTable table, std::vector<bool> present);
  void move(const Positions& positions, double sign, Tensor& b, const std::function<void(const Tensor&)>& see) const;
  void remove_superseded() const;
  int64_t last_purge() const;
  int64_t next_entry() const { return static_cast<int64_t>(journal_->entries().size()) + 1; }
  std::vector<int64_t> ids_at(const Positions& positions) const;
  std::vector<int64_t> labels_at(const Positions& positions) const;
  Tensor weighted(const Positions& positions, const Tensor& rows) const;
  void find_optimum(const Positions& present, const DowndatedSystem& system, RequestRecord& record) const;
  StateTable extended(const SampleSource& arriving, int64_t entry, const RequestOptions& options) const;
  void check_rows(const SampleSource& arriving, const Positions& positions, const RequestOptions& options) const;
  void check_returning(int64_t entry, const std::set<int64_t>& ids, const SampleSource& samples) const;
  RequestRecord outline(const JournalEntry& entry, const Positions& retained) const;
  void probe(const Tensor& theta, const std::vector<bool>& present, const JacobianOptions& sweeps,
             RequestRecord& record) const;
  // On the probe, in its order: who is left, their inputs, f(θ*), J(θ − θ*), and the rows of the first of them.
  struct OnProbe {
    Positions kept;
    Tensor inputs, star, predicted, rows;
  };
  void compare_on_probe(const Tensor& theta, const OnProbe& on, const JacobianOptions& sweeps,
                        RequestRecord& record) const;
  LinearisedSet set_of(const Positions& positions, const Tensor& rows) const;
  double linearise_from_file(const Positions& present, const SampleSource& retained, const RecomputeOptions& options,
                             const SeePart& see) const;
  std::vector<SampleChange> most_affected(const Tensor& theta, const Positions& retained, int64_t count) const;

  std::string folder_, first_factor_hash_, data_hash_;
  Checkpoint checkpoint_;
  Subset subset_;
  std::string loss_;
  double ridge_ = 0;
  int64_t crossover_ = 0;
  int64_t table_entry_ = 0;  // which entry wrote the table
  StateTable table_;
  std::unordered_map<int64_t, int64_t> position_of_;  // by id
  Tensor theta0_, theta_star_, theta_;
  Tensor b_;  // −∇F at the reference over the present [P]
  std::vector<bool> present_;
  std::unique_ptr<DowndatedSystem> system_;
  std::unique_ptr<RowFile> rows_;
  std::unique_ptr<Journal> journal_;
};

/// What Prepared::relinearise() made, and how.
struct Prepared::Relinearised {
  Prepared state;
  std::vector<RelineariseStep> steps;
};

}  // namespace fastntk
