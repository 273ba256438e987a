#include "unlearn/prepared.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/atomic_folder.h"
#include "engine/blas.h"
#include "engine/descriptor.h"
#include "engine/parse_number.h"
#include "engine/random.h"
#include "engine/sha256.h"
#include "unlearn/kept_system.h"
#include "unlearn/linear_optimum.h"
#include "unlearn/metrics.h"
#include "unlearn/prepared_parts.h"
#include "unlearn/prepared_rows.h"
#include "unlearn/state_files.h"
#include "unlearn/weighted_rows.h"

namespace fastntk {
namespace {

namespace fs = std::filesystem;

const char *const manifest_name = "/manifest.json", *const model_name = "model.safetensors",
                  *const first_factor = "factor-000000.safetensors", *const first_table = "state-000000.safetensors";

// The rows that may leave by Woodbury before a new factor is cheaper, on this machine: what a row's solve takes, of
// eight together, against what making a new factor and writing it take. Not more than 512 or P/8: what has left is
// carried along by every later request.
int64_t measure_crossover(const Cholesky& factor, double seconds_of_factor) {
  const Tensor columns = Tensor::full({factor.size(), 8}, 1, DType::float64);
  const Stopwatch clock;
  static_cast<void>(factor.solve(columns));
  const double per_row = clock.seconds() / 8;
  return std::clamp<int64_t>(static_cast<int64_t>(seconds_of_factor / std::max(per_row, 1e-9)), 1,
                             std::min<int64_t>(512, factor.size() / 8 + 1));
}

template <class T>
T number(const std::string& text, const std::string& what) {
  const auto value = parse_number<T>(text);
  require(value.has_value(), "{}: '{}' is not a number", what, text);
  return *value;
}

// Of a budget for all of prepare() what the sweeps may have: there are also a chunk of rows, twice, and what is held
// already. Then that and as many matrices [P, P] as are still to be made must fit.
// Sweeps on a device have its memory for themselves.
JacobianOptions within_budget(JacobianOptions options, const Module& model, const Subset& subset,
                              const SampleSource& samples, int64_t classes, int matrices) {
  if (options.memory == 0 || model.device() != Device::cpu) return options;
  const int64_t P = subset.size();
  const size_t chunk = static_cast<size_t>(RowFile::chunk * classes * P) * size_of(model.dtype());
  const Tiling tiling = tiling_of(P);
  const size_t matrix =
      allocated_bytes(sizeof(double) * static_cast<size_t>(lower_tiles(tiling.count) * tiling.extent * tiling.extent));
  const size_t live = memory_statistics().live, beside = live + 2 * chunk;
  const size_t least = std::max(beside + least_jacobian_memory(model, subset, samples.at({0}).inputs, options),
                                live + static_cast<size_t>(matrices) * matrix);
  require_usage(options.memory >= least,
                "a memory budget of {} is too small for {} parameters and {} classes: rows of {} samples take {}, A "
                "and its factor {}; with model and data at least {} bytes are needed",
                format_bytes(static_cast<double>(options.memory)), P, classes, RowFile::chunk,
                format_bytes(2 * static_cast<double>(chunk)), format_bytes(2 * static_cast<double>(matrix)), least);
  options.memory -= beside;
  return options;
}

// What prepare() and its ranks are given.
void check_arguments(const Subset& subset, const Tensor& theta0, const SampleSource& samples, int64_t classes,
                     const std::string& loss) {
  static_cast<void>(find_loss(loss));
  require(samples.size() > 0, "there are no samples to prepare for");
  require(theta0.shape() == Shape{subset.size()} && theta0.dtype() == DType::float64, "θ0 is {}, expected float64 [{}]",
          theta0.describe(), subset.size());
  check_labels(samples.labels(), classes);
}

// Rows are kept beside the folder, which is emptied when a run begins, until there is a state; and which they are.
std::string rows_beside(const std::string& folder) { return AtomicFolder::without_slash(folder) + ".rows.partial"; }
std::string rows_key(const std::string& model_file, const std::string& subset, Device device) {
  return fmt::format("{} {} {}", sha256_of_file(model_file), subset, row_bits(device));
}
// Once there is a state.
void remove_rows_beside(const std::string& folder) {
  const std::string file = rows_beside(folder);
  if (fs::remove(file)) sync_folder_of(file);
}

}  // namespace

Prepared Prepared::prepare(const std::string& folder, const Model& model, std::map<std::string, std::string> metadata,
                           const std::string& subset_name, const Tensor& theta0, const SampleSource& samples,
                           const std::string& loss, double ridge, const PrepareOptions& options) {
  const Loss& law = find_loss(loss);
  const Subset subset = choose(*model, subset_name);
  const Tensor theta_star = gather(*model, subset);
  const int64_t n = samples.size(), C = model.config.classes, P = subset.size();
  check_arguments(subset, theta0, samples, C, loss);
  AtomicFolder files(folder);
  const std::string& work = files.partial();
  const std::string model_file = work + "/" + model_name, rows_file = entry_file(work, "rows", 0);
  save_model(model_file, model, std::move(metadata), {{"fastntk.theta0", theta0}});

  StateTable table{.ids = samples.ids(),
                   .labels = samples.labels().to_vector<int64_t>(),
                   .present = std::vector<bool>(static_cast<size_t>(n), true),
                   .sample_hashes = {},
                   .row_hashes = {},
                   .row_parts = {{0, n}},
                   .logits = Tensor({n, C}, DType::float64),
                   .reference = {},
                   .reference_logits = {},
                   .optimum = {},
                   .probe_inputs = {},
                   .probe_positions = all_positions(n)};
  NormalEquations normal{.reference = theta0, .logits = Tensor({n, C}, DType::float64)};
  GramAccumulator accumulator(law.curvature_factor ? 0 : P, 1, model->device());
  // A copy of the model, with which goes what its weights were transformed into for the sweeps.
  std::optional<Model> sweeping = load_model(model_file).model;
  (*sweeping)->to(model->device());
  // A is made beside the rows with the squared error, and from their file with a loss that has curvature.
  const JacobianOptions sweeps =
      within_budget(options.jacobian, **sweeping, subset, samples, C, law.curvature_factor ? 2 : 1);
  {
    SafeTensorsWriter rows(rows_file, {}, {{"rows", model->dtype(), {n, C, P}}});
    const std::string key = rows_key(model_file, subset_name, model->device());
    linearise_resumably(**sweeping, subset, samples, sweeps, rows_beside(folder), key, [&](const LinearisedPart& part) {
      const auto& [first, set, hashes] = part;
      table.sample_hashes.insert(table.sample_hashes.end(), hashes.begin(), hashes.end());
      for (int64_t i = 0; i < set.size(); i++) table.row_hashes.push_back(sha256_of(set.rows.select(0, i)));
      rows.append("rows", set.rows);
      table.logits.slice(0, first, first + set.size()).copy_from(set.logits.to(DType::float64));
      if (law.curvature_factor) return;
      const Tensor at = linear_logits(set, combine(theta0, -1, theta_star));
      normal.logits.slice(0, first, first + set.size()).copy_from(at);
      accumulator.add(set.rows, residuals_at(law, at, set.labels.to_vector<int64_t>()));
    });
    rows.commit();
  }
  sweeping.reset();
  release_cached_memory();  // what the sweeps had; A and its factor come in its place
  if (law.curvature_factor) {
    const auto rows = table.open_rows(work, P);
    normal = normal_equations_at_optimum({*rows, law, table.logits, table.labels, theta0, theta_star, ridge});
  } else {
    Gram gram = std::move(accumulator).finish();
    normal.matrix = std::move(gram.matrix), normal.right_hand_side = gram.right_hand_side.reshape({P});
  }
  const Tensor& b = normal.right_hand_side;
  const Stopwatch clock;
  Cholesky factor(normal.matrix.clone(), ridge);
  const int64_t crossover = options.crossover >= 0 ? options.crossover : measure_crossover(factor, clock.seconds());
  const double condition = factor.condition_estimate();
  const DowndatedSystem system(std::move(normal.matrix), std::move(factor), condition, crossover);
  table.optimum = system.solve(b).x;
  table.reference = normal.reference, table.reference_logits = normal.logits;
  const std::string factor_hash = write_factor(work, 0, system, b);

  // The probe: those with the smallest random numbers, by position.
  Positions& order = table.probe_positions;
  const std::vector<double> draws = Random(0, 17).normal_tensor({n}, DType::float64).to_vector<double>();
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t c) { return draws[static_cast<size_t>(a)] < draws[static_cast<size_t>(c)]; });
  order.resize(static_cast<size_t>(std::min(n, probe_size)));
  std::sort(order.begin(), order.end());
  table.probe_inputs = samples.at(order).inputs;

  const Manifest manifest{
      .format_version = format_version,
      .program_version = FASTNTK_VERSION,
      .blas_kernel_set = blas_kernel_set(),
      .settings = {{"loss", loss},
                   {"subset", subset_name},
                   {"ridge", fmt::format("{:.17g}", ridge)},
                   {"convention", "sum"},
                   {"arithmetic", row_arithmetic(model->device())},
                   {"crossover", std::to_string(crossover)},
                   {"data_sha256", sha256(joined(table.sample_hashes))}},
      .file_hashes = {
          {model_name, sha256_of_file(model_file)}, {first_factor, factor_hash}, {first_table, table.save(work, 0)}}};
  { const Journal empty(work + "/journal.jsonl", Journal::Access::write); }
  write_manifest(work + manifest_name, manifest);
  files.commit();
  remove_rows_beside(folder);
  return open(folder, Journal::Access::write, model->device());
}

RankFile Prepared::prepare_rank(const std::string& folder, const Model& model,
                                std::map<std::string, std::string> metadata, const std::string& subset_name,
                                const Tensor& theta0, const SampleSource& samples, const std::string& loss,
                                const Rank& rank, const JacobianOptions& options) {
  require_usage(!fs::exists(folder), "{} exists; ranks are for a state that is to be made", folder);
  const Subset subset = choose(*model, subset_name);
  check_arguments(subset, theta0, samples, model.config.classes, loss);
  const JacobianOptions sweeps = within_budget(options, *model, subset, samples, model.config.classes, 0);
  std::string key;
  {
    const AtomicFolder files(AtomicFolder::without_slash(folder) + "." + rank.str());  // for the hash alone
    const std::string model_file = files.partial() + "/" + model_name;
    save_model(model_file, model, std::move(metadata), {{"fastntk.theta0", theta0}});
    key = rows_key(model_file, subset_name, model->device());
  }
  return linearise_rank(*model, subset, samples, sweeps, rows_beside(folder), key, rank);
}

Prepared Prepared::open(const std::string& folder, Journal::Access access, Device device) {
  Prepared p;
  p.folder_ = folder;
  const std::string manifest_path = folder + manifest_name, model_path = folder + "/" + model_name;
  require(fs::is_directory(folder), "{} is not a folder with a prepared state", folder);
  const Manifest manifest = read_manifest(manifest_path, format_version);
  const auto hash_of_first = [&](const char* name) {
    const auto at = manifest.file_hashes.find(name);
    require(at != manifest.file_hashes.end(), "{} has no hash of {}", manifest_path, name);
    return at->second;
  };
  require(hash_of_first(model_name) == sha256_of_file(model_path),
          "{} is damaged: its hash is not the one in the manifest", model_path);
  p.journal_ = std::make_unique<Journal>(folder + "/journal.jsonl", access);
  p.checkpoint_ = load_model(model_path);
  p.checkpoint_.model->to(device);
  const std::string& arithmetic = setting(manifest, "arithmetic", manifest_path);
  require_usage(arithmetic == row_arithmetic(device),
                "{} was prepared with {}, this run has {} (--conv, --precision, --device)", folder, arithmetic,
                row_arithmetic(device));
  p.loss_ = setting(manifest, "loss", manifest_path);
  p.data_hash_ = setting(manifest, "data_sha256", manifest_path);
  p.ridge_ = number<double>(setting(manifest, "ridge", manifest_path), manifest_path);
  p.crossover_ = number<int64_t>(setting(manifest, "crossover", manifest_path), manifest_path);
  p.subset_ = choose(*p.checkpoint_.model, setting(manifest, "subset", manifest_path));
  p.theta0_ = tensor_in(SafeTensors::load(model_path), "fastntk.theta0", model_path);
  p.theta_star_ = gather(*p.checkpoint_.model, p.subset_);
  p.first_factor_hash_ = hash_of_first(first_factor);
  std::string hash = hash_of_first(first_table);
  for (const JournalEntry& entry : p.journal_->entries())
    if (const auto written = entry.hashes.find("state"); written != entry.hashes.end())
      p.table_entry_ = entry.number, hash = written->second;
  StateTable table = StateTable::load(folder, p.table_entry_, hash);
  std::vector<bool> present = table.present;
  p.use(std::move(table), std::move(present));
  const auto last = static_cast<int64_t>(p.journal_->entries().size());
  p.present_.assign(p.table_.ids.size(), false);
  for (const int64_t i : p.present_after(last)) p.present_[static_cast<size_t>(i)] = true;
  p.theta_ = p.theta_after(last);
  if (access == Journal::Access::write) {
    p.remove_superseded();
    remove_rows_beside(folder);  // where prepare() was killed after its state was made
  }
  return p;
}

void Prepared::use(StateTable table, std::vector<bool> present) {
  table_ = std::move(table), present_ = std::move(present);
  position_of_ = places_of(table_.ids);
  rows_ = table_.open_rows(folder_, subset_.size());
}

void Prepared::load_system() {
  KeptSystem kept = read_kept_system(folder_, *journal_, first_factor_hash_, subset_.size(), ridge_, crossover_,
                                     [&](const JournalEntry& entry) {
                                       Positions left = positions_of(entry.ids);
                                       std::sort(left.begin(), left.end());
                                       return weighted(left, rows_->read(left));
                                     });
  system_ = std::move(kept.system), b_ = kept.right_hand_side;
}

void Prepared::remove_superseded() const {
  std::vector<int64_t> rows;
  for (const auto& part : table_.row_parts) rows.push_back(part.entry);
  remove_superseded_files(folder_, *journal_,
                          {.table = table_entry_, .rows = std::move(rows), .first_weights = last_purge()});
}

// The entry that purged last; 0 if none did.
int64_t Prepared::last_purge() const {
  int64_t last = 0;
  for (const JournalEntry& entry : journal_->entries())
    if (entry.kind == "purge") last = entry.number;
  return last;
}

Positions Prepared::present_after(int64_t entry) const {
  const auto& entries = journal_->entries();
  require_usage(entry >= 0 && entry <= static_cast<int64_t>(entries.size()),
                "the journal of {} has {} entries, there is no entry {}", folder_, entries.size(), entry);
  require(entry >= last_purge(), "what {} had after entry {} was purged by entry {}", folder_, entry, last_purge());
  std::vector<bool> there = table_.present;
  const auto set = [&](const JournalEntry& by, const std::vector<int64_t>& ids, bool value) {
    for (const int64_t id : ids) {
      const auto at = position_of_.find(id);
      require(at != position_of_.end() && there[static_cast<size_t>(at->second)] != value,
              "entry {} of the journal of {} speaks of sample {}, which {} there", by.number, folder_, id,
              value ? "is already" : "is not");
      there[static_cast<size_t>(at->second)] = value;
    }
  };
  for (int64_t k = table_entry_; k < entry; k++) {
    const JournalEntry& next = entries[static_cast<size_t>(k)];
    set(next, next.ids, false), set(next, next.arrived, true);
  }
  for (int64_t k = table_entry_; k > entry; k--) {
    const JournalEntry& undone = entries[static_cast<size_t>(k - 1)];
    set(undone, undone.arrived, false), set(undone, undone.ids, true);
  }
  Positions out;
  for (size_t i = 0; i < there.size(); i++)
    if (there[i]) out.push_back(static_cast<int64_t>(i));
  return out;
}

std::string Prepared::record_path(int64_t entry) const { return entry_file(folder_, "record", entry, "json"); }

Tensor Prepared::theta_after(int64_t entry) const {
  require(entry >= last_purge(), "the weights after entry {} of {} were purged by entry {}", entry, folder_,
          last_purge());
  while (entry > 0 && journal_->entries().at(static_cast<size_t>(entry - 1)).kind == "compact") entry--;
  if (entry == 0) return theta_star_;
  const std::string path = entry_file(folder_, "weights", entry, "safetensors");
  const auto& hashes = journal_->entries().at(static_cast<size_t>(entry - 1)).hashes;
  Tensor theta = tensor_in(SafeTensors::load(path), "theta", path);
  const auto expected = hashes.find("weights");
  require(expected != hashes.end() && theta.shape() == theta0_.shape() && sha256_of(theta) == expected->second,
          "{} is damaged: the hash of its weights is not the one in the journal", path);
  return theta;
}

Prepared::Relinearised Prepared::relinearise(const std::string& folder, const SampleSource& samples, int steps,
                                             const PrepareOptions& options) const {
  require_usage(steps >= 0, "the number of steps must be 0 or more, got {}", steps);
  require_usage(!fs::exists(folder), "{} exists; a state is made in a folder of its own", folder);  // before the steps
  const SampleSource here = in_order(samples, present());
  const Model moved = checkpoint_.model.clone();
  scatter(*moved, subset_, theta_);
  std::vector<RelineariseStep> done;
  if (steps > 0)
    done =
        fastntk::relinearise(*moved, subset_, here.all(), find_loss(loss_), ridge_, theta0_, steps, options.jacobian);
  auto metadata = checkpoint_.metadata;
  metadata["unlearn.relinearised_after"] = journal_->last_hash();
  return {.state = prepare(folder, moved, metadata, subset_.specification, theta0_, here, loss_, ridge_, options),
          .steps = std::move(done)};
}

}  // namespace fastntk
