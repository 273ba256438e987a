#include "unlearn/prepared.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "engine/atomic_folder.h"
#include "engine/blas.h"
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

const char *const manifest_name = "/manifest.json", *const state_name = "/state.safetensors",
                  *const rows_name = "/rows.safetensors", *const first_factor = "factor-000000.safetensors";

// Hashes of 64 digits, one a line, as bytes in a tensor.
Tensor as_bytes_tensor(const std::string& text) {
  return Tensor::from<uint8_t>({static_cast<int64_t>(text.size())}, std::vector<uint8_t>(text.begin(), text.end()));
}
std::vector<std::string> lines_of(const Tensor& bytes, size_t count, const std::string& path) {
  const auto values = bytes.to_vector<uint8_t>();
  require(values.size() == count * 65, "{}: hashes of {} samples take {} bytes, got {}", path, count, count * 65,
          values.size());
  std::vector<std::string> out;
  for (size_t i = 0; i < count; i++)
    out.emplace_back(values.begin() + static_cast<long>(i * 65), values.begin() + static_cast<long>(i * 65 + 64));
  return out;
}

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

const Tensor& tensor_in(const SafeTensors& file, const char* name, const std::string& path) {
  const Tensor* const t = file.find(name);
  require(t != nullptr, "{} has no tensor '{}'", path, name);
  return *t;
}

template <class T>
T number(const std::string& text, const std::string& what) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc() && end == text.data() + text.size(), "{}: '{}' is not a number", what, text);
  return value;
}

// Of a budget for all of prepare() what the sweeps may have: there are also a chunk of rows, twice, and what is held
// already, which has A in it if `has_matrix`. Then A and its factor must fit.
JacobianOptions within_budget(JacobianOptions options, int64_t parameters, size_t chunk_bytes, bool has_matrix) {
  if (options.memory == 0) return options;
  const Tiling tiling = tiling_of(parameters);
  const size_t matrix =
      allocated_bytes(sizeof(double) * static_cast<size_t>(lower_tiles(tiling.count) * tiling.extent * tiling.extent));
  const size_t live = memory_statistics().live, sweeping = live + 2 * chunk_bytes;
  const size_t least = std::max(sweeping + (size_t{1} << 20), live + (has_matrix ? 1 : 2) * matrix);
  require_usage(
      options.memory >= least,
      "a memory budget of {} is too small to prepare a state of {} parameters: A and its factor take {}, with "
      "model and data at least {} are needed",
      format_bytes(static_cast<double>(options.memory)), parameters, format_bytes(2 * static_cast<double>(matrix)),
      least);
  options.memory -= sweeping;
  return options;
}

}  // namespace

Prepared Prepared::prepare(const std::string& folder, const Model& model, std::map<std::string, std::string> metadata,
                           const std::string& subset_name, const Tensor& theta0, const SampleSource& samples,
                           const std::string& loss, double ridge, const PrepareOptions& options) {
  const Loss& law = find_loss(loss);
  const Subset subset = choose(*model, subset_name);
  const Tensor theta_star = gather(*model, subset);
  const int64_t n = samples.size(), C = model.config.classes, P = subset.size();
  require(n > 0, "there are no samples to prepare for");
  require(theta0.shape() == Shape{P} && theta0.dtype() == DType::float64, "θ0 is {}, expected float64 [{}]",
          theta0.describe(), P);
  for (const int64_t label : samples.labels().to_vector<int64_t>())
    require_usage(label >= 0 && label < C, "a sample has the label {}, the model has {} classes", label, C);
  AtomicFolder files(folder);
  const std::string& work = files.partial();
  const std::string model_file = work + "/model.safetensors";
  save_model(model_file, model, std::move(metadata), {{"fastntk.theta0", theta0}});

  std::vector<std::string> sample_hashes, row_hashes;
  Tensor logits({n, C}, DType::float64);
  NormalEquations normal{.reference = theta0, .logits = Tensor({n, C}, DType::float64)};
  GramAccumulator accumulator(law.curvature_factor ? 0 : P);
  const JacobianOptions sweeps =
      within_budget(options.jacobian, P, static_cast<size_t>(RowFile::chunk * C * P) * size_of(model->dtype()),
                    !law.curvature_factor);
  {
    SafeTensorsWriter rows(work + rows_name, {}, {{"rows", model->dtype(), {n, C, P}}});
    // Beside the folder, which is emptied when a run begins.
    const std::string pieces = files.path() + ".rows.partial", run = sha256_of_file(model_file) + " " + subset_name;
    linearise_resumably(*model, subset, samples, sweeps, pieces, run, [&](const LinearisedPart& part) {
      const auto& [first, set, hashes] = part;
      sample_hashes.insert(sample_hashes.end(), hashes.begin(), hashes.end());
      for (int64_t i = 0; i < set.size(); i++) row_hashes.push_back(sha256_of(set.rows.select(0, i)));
      rows.append("rows", set.rows);
      logits.slice(0, first, first + set.size()).copy_from(set.logits.to(DType::float64));
      if (law.curvature_factor) return;
      const Tensor at = linear_logits(set, combine(theta0, -1, theta_star));
      normal.logits.slice(0, first, first + set.size()).copy_from(at);
      accumulator.add(set.rows, residuals_at(law, at, set.labels.to_vector<int64_t>()));
    });
    rows.commit();
  }
  release_cached_memory();  // what the sweeps had; A and its factor come in its place
  if (law.curvature_factor) {
    const RowFile rows(work + rows_name, C, P, row_hashes, samples.ids());
    normal = normal_equations_at_optimum(
        {rows, law, logits, samples.labels().to_vector<int64_t>(), theta0, theta_star, ridge});
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
  const Tensor optimum = system.solve(b).x;
  const std::string factor_hash = write_factor(work, 0, system, b);

  // The probe: those with the smallest random numbers, by position.
  Positions order = all_positions(n);
  const std::vector<double> draws = Random(0, 17).normal_tensor({n}, DType::float64).to_vector<double>();
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t c) { return draws[static_cast<size_t>(a)] < draws[static_cast<size_t>(c)]; });
  order.resize(static_cast<size_t>(std::min(n, probe_size)));
  std::sort(order.begin(), order.end());

  SafeTensors file;
  file.tensors = {{"optimum", optimum},
                  {"logits", logits},
                  {"reference", normal.reference},
                  {"reference_logits", normal.logits},
                  {"ids", Tensor::from<int64_t>({n}, samples.ids())},
                  {"labels", samples.labels().contiguous()},
                  {"sample_hashes", as_bytes_tensor(joined(sample_hashes))},
                  {"row_hashes", as_bytes_tensor(joined(row_hashes))},
                  {"probe", samples.at(order).inputs},
                  {"probe_positions", Tensor::from<int64_t>({static_cast<int64_t>(order.size())}, order)}};
  file.save(work + state_name);
  Manifest manifest{.format_version = format_version,
                    .program_version = FASTNTK_VERSION,
                    .blas_kernel_set = blas_kernel_set(),
                    .settings = {{"loss", loss},
                                 {"subset", subset_name},
                                 {"ridge", fmt::format("{:.17g}", ridge)},
                                 {"convention", "sum"},
                                 {"crossover", std::to_string(crossover)}}};
  for (const char* const name : {"model.safetensors", "rows.safetensors", "state.safetensors"})
    manifest.file_hashes[name] = sha256_of_file(work + "/" + name);
  manifest.file_hashes[first_factor] = factor_hash;
  { const Journal empty(work + "/journal.jsonl", Journal::Access::write); }
  write_manifest(work + manifest_name, manifest);
  files.commit();
  return open(folder, Journal::Access::write);
}

Prepared Prepared::open(const std::string& folder, Journal::Access access) {
  Prepared p;
  p.folder_ = folder;
  const std::string manifest_path = folder + manifest_name, path = folder + state_name,
                    model_path = folder + "/model.safetensors";
  require(fs::is_directory(folder), "{} is not a folder with a prepared state", folder);
  const Manifest manifest = read_manifest(manifest_path, format_version);
  for (const char* const name : {"model.safetensors", "state.safetensors"}) {
    const auto expected = manifest.file_hashes.find(name);
    require(expected != manifest.file_hashes.end() && expected->second == sha256_of_file(folder + "/" + name),
            "{}/{} is damaged: its hash is not the one in the manifest", folder, name);
  }
  p.journal_ = std::make_unique<Journal>(folder + "/journal.jsonl", access);
  p.checkpoint_ = load_model(model_path);
  p.loss_ = setting(manifest, "loss", manifest_path);
  p.ridge_ = number<double>(setting(manifest, "ridge", manifest_path), manifest_path);
  p.crossover_ = number<int64_t>(setting(manifest, "crossover", manifest_path), manifest_path);
  p.subset_ = choose(*p.checkpoint_.model, setting(manifest, "subset", manifest_path));
  p.theta0_ = tensor_in(SafeTensors::load(model_path), "fastntk.theta0", model_path);
  p.theta_star_ = gather(*p.checkpoint_.model, p.subset_);
  const SafeTensors file = SafeTensors::load(path);
  p.ids_ = tensor_in(file, "ids", path).to_vector<int64_t>();
  for (size_t i = 0; i < p.ids_.size(); i++) p.position_of_[p.ids_[i]] = i;
  p.labels_ = tensor_in(file, "labels", path).to_vector<int64_t>();
  p.sample_hashes_ = lines_of(tensor_in(file, "sample_hashes", path), p.ids_.size(), path);
  p.optimum_ = tensor_in(file, "optimum", path);
  p.logits_ = tensor_in(file, "logits", path);
  p.reference_ = tensor_in(file, "reference", path);
  p.reference_logits_ = tensor_in(file, "reference_logits", path);
  p.probe_inputs_ = tensor_in(file, "probe", path);
  p.probe_positions_ = tensor_in(file, "probe_positions", path).to_vector<int64_t>();
  p.rows_ = std::make_unique<RowFile>(folder + rows_name, p.logits_.extent(1), p.subset_.size(),
                                      lines_of(tensor_in(file, "row_hashes", path), p.ids_.size(), path), p.ids_);
  const auto last = static_cast<int64_t>(p.journal_->entries().size());
  p.present_.assign(p.ids_.size(), false);
  for (const int64_t i : p.present_after(last)) p.present_[static_cast<size_t>(i)] = true;
  p.theta_ = p.theta_after(last);
  const auto expected_factor = manifest.file_hashes.find(first_factor);
  require(expected_factor != manifest.file_hashes.end(), "{} has no hash of {}", manifest_path, first_factor);
  p.first_factor_hash_ = expected_factor->second;
  if (access == Journal::Access::write) remove_superseded(folder, *p.journal_);
  return p;
}

void Prepared::load_system() {
  KeptSystem kept = read_kept_system(folder_, *journal_, first_factor_hash_, subset_.size(), ridge_, crossover_,
                                     [&](const JournalEntry& entry) {
                                       Positions left;
                                       for (const int64_t id : entry.ids)
                                         left.push_back(static_cast<int64_t>(position_of_.at(id)));
                                       std::sort(left.begin(), left.end());
                                       return weighted(left, rows_->read(left));
                                     });
  system_ = std::move(kept.system), b_ = kept.right_hand_side;
}

Positions Prepared::present_after(int64_t entry) const {
  std::vector<bool> gone(ids_.size(), false);
  require_usage(entry >= 0 && entry <= static_cast<int64_t>(journal_->entries().size()),
                "the journal of {} has {} entries, there is no entry {}", folder_, journal_->entries().size(), entry);
  for (int64_t k = 0; k < entry; k++)
    for (const int64_t id : journal_->entries()[static_cast<size_t>(k)].ids) {
      const auto at = position_of_.find(id);
      require(at != position_of_.end() && !gone[at->second],
              "entry {} of the journal of {} forgets sample {}, which is not there", k + 1, folder_, id);
      gone[at->second] = true;
    }
  Positions out;
  for (size_t i = 0; i < gone.size(); i++)
    if (!gone[i]) out.push_back(static_cast<int64_t>(i));
  return out;
}

std::string Prepared::record_path(int64_t entry) const { return entry_file(folder_, "record", entry, "json"); }

Tensor Prepared::theta_after(int64_t entry) const {
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

std::vector<int64_t> Prepared::labels_at(const Positions& positions) const {
  std::vector<int64_t> out;
  for (const int64_t i : positions) out.push_back(labels_[static_cast<size_t>(i)]);
  return out;
}

// What the rows of these samples bring into A: those of √Λᵢ·Jᵢ, Λᵢ at the reference.
Tensor Prepared::weighted(const Positions& positions, const Tensor& rows) const {
  return weighted_rows(rows, gather_rows(reference_logits_, positions), labels_at(positions), find_loss(loss_));
}

// The same some at a time; what the samples brought into b is taken off it.
void Prepared::take_off(const Positions& leaving, Tensor& b, const std::function<void(const Tensor&)>& see) const {
  rows_->for_each(leaving, [&](const Positions& part, const Tensor& rows) {
    const Tensor at = gather_rows(reference_logits_, part);
    const LinearisedSet set{rows, at, Tensor::from<int64_t>({rows.extent(0)}, labels_at(part))};
    b = combine(
        b, -1,
        transposed_rows_times(set, all_positions(set.size()), residuals_at(find_loss(loss_), at, labels_at(part))));
    see(weighted(part, rows));
  });
}

// The optimum of the linearised model on the samples present, from that before the request and with the system of
// those that remain, whose Λ is that of the reference, as preconditioner. Before it `record.theta` is what this system
// alone gives: with Λ frozen.
void Prepared::find_optimum(const std::vector<bool>& present, const DowndatedSystem& system,
                            ForgetRecord& record) const {
  Positions remaining;
  for (size_t i = 0; i < present.size(); i++)
    if (present[i]) remaining.push_back(static_cast<int64_t>(i));
  const LinearOptimum best = linear_optimum({*rows_, find_loss(loss_), logits_, labels_, theta0_, theta_star_, ridge_},
                                            remaining, combine(reference_, 1, combine(theta_, -1, theta_star_)),
                                            [&](const Tensor& x) { return system.apply_inverse(x); });
  const Tensor frozen = record.theta;
  record.theta = combine(theta_star_, 1, combine(best.theta, -1, reference_));
  record.newton = {
      .start_gradient_norm = best.start_gradient_norm,
      .gradient_norm = best.gradient_norm,
      .distance_bound = best.distance_bound,
      .frozen_difference = norm(combine(frozen, -1, record.theta)) / norm(combine(record.theta, -1, theta_star_)),
      .chord_steps = best.chord_steps,
      .newton_steps = best.newton_steps,
      .passes = best.passes};
}

bool Prepared::compact() {
  if (!system_) load_system();
  if (system_->pending_rows() == 0) return false;
  const auto entry = static_cast<int64_t>(journal_->entries().size()) + 1;
  std::unique_ptr<DowndatedSystem> system = std::move(system_);
  system->compact();
  const std::string hash = write_factor(folder_, entry, *system, b_);
  journal_->append({.kind = "compact", .representation = "factor", .hashes = {{"factor", hash}}});
  remove_superseded(folder_, *journal_);
  system_ = std::move(system);
  return true;
}

ForgetRecord Prepared::forget(std::vector<int64_t> ids, const ForgetOptions& options) {
  std::sort(ids.begin(), ids.end());
  require_usage(!ids.empty(), "there is nothing to forget: no sample was chosen");
  const auto repeated = std::adjacent_find(ids.begin(), ids.end());
  require_usage(repeated == ids.end(), "the id {} is given twice", repeated == ids.end() ? 0 : *repeated);
  std::vector<bool> present = present_;
  Positions leaving;
  for (const int64_t id : ids) {
    const auto at = position_of_.find(id);
    require_usage(at != position_of_.end(), "the state {} has no sample with the id {}", folder_, id);
    require_usage(present[at->second], "the sample with the id {} was forgotten before", id);
    present[at->second] = false;
    leaving.push_back(static_cast<int64_t>(at->second));
  }
  const auto n_before = std::count(present_.begin(), present_.end(), true);
  require_usage(static_cast<int64_t>(ids.size()) < n_before,
                "nothing would be left: all {} samples of the state are to be forgotten", n_before);
  Positions retained;
  for (size_t i = 0; i < present.size(); i++)
    if (present[i]) retained.push_back(static_cast<int64_t>(i));
  ForgetRecord r = outline(static_cast<int64_t>(journal_->entries().size()) + 1, ids, retained);
  if (options.dry_run) r.entry = 0;
  r.weights_before = sha256_of(theta_);
  r.command = options.command, r.phases = options.phases;

  std::sort(leaving.begin(), leaving.end());
  // The system moves on with the request; should that come to nothing, it is read again from the files.
  if (!system_) r.phases.push_back(measure("read", [&] { load_system(); }));
  std::unique_ptr<DowndatedSystem> system = std::move(system_);
  Tensor b = b_;
  const int64_t rows = static_cast<int64_t>(ids.size()) * logits_.extent(1);
  r.phases.push_back(measure("solve", [&] {
    const int64_t factorisations = system->factorisations();
    system->remove(rows, [&](const auto& see) { take_off(leaving, b, see); });
    const Refinement x = system->solve(b);
    r.representation = system->factorisations() > factorisations ? "factor" : "woodbury";
    r.relative_residual = x.relative_residual;
    r.condition_bound = system->condition_bound(), r.smallest_eigenvalue = system->smallest_eigenvalue();
    r.theta = combine(combine(theta_star_, 1, x.x), -1, optimum_);
  }));
  if (find_loss(loss_).curvature_factor)
    r.phases.push_back(measure("newton", [&] { find_optimum(present, *system, r); }));
  r.weights_after = sha256_of(r.theta);
  r.update_norm = norm(combine(r.theta, -1, theta_));
  r.phases.push_back(measure("probe", [&] { probe(r.theta, present, r); }));
  if (options.most_affected > 0)
    r.phases.push_back(
        measure("affected", [&] { r.most_affected = most_affected(r.theta, retained, options.most_affected); }));
  if (options.dry_run) return r;
  r.phases.push_back(measure("write", [&] {
    SafeTensors weights;
    weights.tensors = {{"theta", r.theta}};
    weights.save(entry_file(folder_, "weights", r.entry, "safetensors"));
    const bool factored = r.representation == "factor";
    const std::string solved_hash =
        factored ? write_factor(folder_, r.entry, *system, b) : write_pending(folder_, r.entry, *system, rows, b);
    write_file_atomically(record_path(r.entry), r.json(options.key));
    journal_->append({.kind = "forget",
                      .ids = ids,
                      .representation = r.representation,
                      .hashes = {{factored ? "factor" : "pending", solved_hash},
                                 {"weights", r.weights_after},
                                 {"samples", r.samples_sha256},
                                 {"result", sha256(r.result())}}});
    if (factored) remove_superseded(folder_, *journal_);
  }));
  system_ = std::move(system), present_ = std::move(present), b_ = b, theta_ = r.theta;
  return r;
}

}  // namespace fastntk
