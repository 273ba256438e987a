// What changes a prepared state: samples leave, arrive or are purged, each an entry of its journal.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "engine/sha256.h"
#include "unlearn/kept_system.h"
#include "unlearn/linear_optimum.h"
#include "unlearn/metrics.h"
#include "unlearn/prepared.h"
#include "unlearn/prepared_parts.h"
#include "unlearn/state_files.h"
#include "unlearn/weighted_rows.h"

namespace fastntk {
namespace {

namespace fs = std::filesystem;

// Those of the samples at these places, in their order.
SampleSource chosen(const SampleSource& samples, const Positions& places) {
  std::vector<int64_t> ids;
  for (const int64_t i : places) ids.push_back(samples.ids()[static_cast<size_t>(i)]);
  return {gather_rows(samples.labels(), places), ids, [=](const Positions& wanted) {
            Positions inner;
            for (const int64_t i : wanted) inner.push_back(places[static_cast<size_t>(i)]);
            return samples.at(inner).inputs;
          }};
}

}  // namespace

std::vector<int64_t> Prepared::ids_at(const Positions& positions) const {
  std::vector<int64_t> out;
  for (const int64_t i : positions) out.push_back(table_.ids[static_cast<size_t>(i)]);
  return out;
}

std::vector<int64_t> Prepared::labels_at(const Positions& positions) const {
  std::vector<int64_t> out;
  for (const int64_t i : positions) out.push_back(table_.labels[static_cast<size_t>(i)]);
  return out;
}

// What the rows of these samples bring into A: those of √Λᵢ·Jᵢ, Λᵢ at the reference.
Tensor Prepared::weighted(const Positions& positions, const Tensor& rows) const {
  return weighted_rows(rows, gather_rows(table_.reference_logits, positions), labels_at(positions), find_loss(loss_));
}

// The same some at a time; what the samples bring into b is added `sign` times.
void Prepared::move(const Positions& positions, double sign, Tensor& b,
                    const std::function<void(const Tensor&)>& see) const {
  rows_->for_each(positions, [&](const Positions& part, const Tensor& rows) {
    const Tensor at = gather_rows(table_.reference_logits, part);
    const LinearisedSet set{rows, at, Tensor::from<int64_t>({rows.extent(0)}, labels_at(part))};
    b = combine(
        b, sign,
        transposed_rows_times(set, all_positions(set.size()), residuals_at(find_loss(loss_), at, labels_at(part))));
    see(weighted(part, rows));
  });
}

// The optimum of the linearised model on the samples present, from that before the request and with the system of
// those that are there, whose Λ is that of the reference, as preconditioner. Before it `record.theta` is what this
// system alone gives: with Λ frozen.
void Prepared::find_optimum(const Positions& present, const DowndatedSystem& system, RequestRecord& record) const {
  const LinearOptimum best =
      linear_optimum({*rows_, find_loss(loss_), table_.logits, table_.labels, theta0_, theta_star_, ridge_}, present,
                     combine(table_.reference, 1, combine(theta_, -1, theta_star_)),
                     [&](const Tensor& x) { return system.apply_inverse(x); });
  const Tensor frozen = record.theta;
  record.theta = combine(theta_star_, 1, combine(best.theta, -1, table_.reference));
  record.newton = {
      .start_gradient_norm = best.start_gradient_norm,
      .gradient_norm = best.gradient_norm,
      .distance_bound = best.distance_bound,
      .frozen_difference = norm(combine(frozen, -1, record.theta)) / norm(combine(record.theta, -1, theta_star_)),
      .chord_steps = best.chord_steps,
      .newton_steps = best.newton_steps,
      .passes = best.passes};
}

// `table_hash` is that of the table's file if this entry wrote one.
RequestRecord Prepared::serve(const Change& change, const RequestOptions& options, const std::string& table_hash) {
  std::vector<bool> present = present_;
  for (const int64_t i : change.leaving) present[static_cast<size_t>(i)] = false;
  for (const int64_t i : change.arriving) present[static_cast<size_t>(i)] = true;
  Positions retained;
  for (size_t i = 0; i < present.size(); i++)
    if (present[i]) retained.push_back(static_cast<int64_t>(i));
  JournalEntry entry{.number = next_entry(),
                     .kind = change.request,
                     .ids = ids_at(change.leaving),
                     .arrived = ids_at(change.arriving),
                     .to = change.restored_to};
  std::sort(entry.ids.begin(), entry.ids.end()), std::sort(entry.arrived.begin(), entry.arrived.end());
  RequestRecord r = outline(entry, retained);
  if (options.dry_run) r.entry = 0;
  r.weights_before = sha256_of(theta_);
  r.command = options.command, r.phases.insert(r.phases.begin(), options.phases.begin(), options.phases.end());

  // The system moves on with the request; should that come to nothing, it is read again from the files.
  if (!system_) r.phases.push_back(measure("read", [&] { load_system(); }));
  std::unique_ptr<DowndatedSystem> system = std::move(system_);
  Tensor b = b_;
  const int64_t rows_leaving = static_cast<int64_t>(change.leaving.size()) * table_.logits.extent(1);
  const int64_t factorisations = system->factorisations();
  const bool purge = change.request == "purge";
  r.phases.push_back(measure("solve", [&] {
    system->remove(rows_leaving, [&](const auto& see) { move(change.leaving, -1, b, see); });
    if (!change.arriving.empty()) system->add([&](const auto& see) { move(change.arriving, 1, b, see); });
    if (purge) system->compact();
    const Refinement x = system->solve(b);
    r.representation = system->pending_rows() > 0 ? "woodbury" : "factor";
    r.relative_residual = x.relative_residual;
    r.condition_bound = system->condition_bound(), r.smallest_eigenvalue = system->smallest_eigenvalue();
    r.theta = purge ? theta_ : combine(combine(theta_star_, 1, x.x), -1, table_.optimum);
  }));
  if (find_loss(loss_).curvature_factor && !purge)
    r.phases.push_back(measure("newton", [&] { find_optimum(retained, *system, r); }));
  r.weights_after = sha256_of(r.theta);
  r.update_norm = norm(combine(r.theta, -1, theta_));
  r.phases.push_back(measure("probe", [&] { probe(r.theta, present, options.jacobian, r); }));
  if (options.most_affected > 0)
    r.phases.push_back(
        measure("affected", [&] { r.most_affected = most_affected(r.theta, retained, options.most_affected); }));
  if (options.dry_run) return r;
  const bool factored = system->factorisations() > factorisations;
  r.phases.push_back(measure("write", [&] {
    SafeTensors weights;
    weights.tensors = {{"theta", r.theta}};
    weights.save(entry_file(folder_, "weights", r.entry, "safetensors"));
    entry.representation = r.representation;
    entry.hashes = {{"weights", r.weights_after}, {"samples", r.samples_sha256}, {"result", sha256(r.result())}};
    if (!entry.arrived.empty()) entry.hashes["arrived"] = r.arrived_sha256;
    if (factored)
      entry.hashes["factor"] = write_factor(folder_, r.entry, *system, b);
    else if (rows_leaving > 0)
      entry.hashes["pending"] = write_pending(folder_, r.entry, *system, rows_leaving, b);
    if (!table_hash.empty()) entry.hashes["state"] = table_hash;
    write_file_atomically(record_path(r.entry), r.json(options.key));
    journal_->append(entry);
  }));
  system_ = std::move(system), present_ = std::move(present), b_ = b, theta_ = r.theta;
  if (!table_hash.empty()) table_entry_ = r.entry;
  if (factored || !table_hash.empty()) remove_superseded();
  return r;
}

// The same with a table that this entry writes, and who of it is there before the change.
RequestRecord Prepared::serve_with(StateTable table, std::vector<bool> present, const Change& change,
                                   const RequestOptions& options) {
  const int64_t entry = next_entry();
  StateTable table_before = table_;
  std::vector<bool> present_before = present_;
  try {
    table.present = present;
    for (const int64_t i : change.leaving) table.present[static_cast<size_t>(i)] = false;
    for (const int64_t i : change.arriving) table.present[static_cast<size_t>(i)] = true;
    const std::string hash = table.save(folder_, entry);
    use(std::move(table), std::move(present));
    return serve(change, options, hash);
  } catch (...) {
    // What an entry that may count has written must stay.
    if (next_entry() == entry && !journal_->is_uncertain()) {
      use(std::move(table_before), std::move(present_before));
      for (const char* const kind : {"rows", "state"}) fs::remove(entry_file(folder_, kind, entry));
    }
    throw;
  }
}

RequestRecord Prepared::forget(std::vector<int64_t> ids, const RequestOptions& options) {
  std::sort(ids.begin(), ids.end());
  require_usage(!ids.empty(), "there is nothing to forget: no sample was chosen");
  const auto repeated = std::adjacent_find(ids.begin(), ids.end());
  require_usage(repeated == ids.end(), "the id {} is given twice", repeated == ids.end() ? 0 : *repeated);
  Positions leaving;
  for (const int64_t id : ids) {
    const auto at = position_of_.find(id);
    require_usage(at != position_of_.end(), "the state {} has no sample with the id {}", folder_, id);
    require_usage(present_[static_cast<size_t>(at->second)], "the sample with the id {} was forgotten before", id);
    leaving.push_back(at->second);
  }
  const auto n_before = std::count(present_.begin(), present_.end(), true);
  require_usage(static_cast<int64_t>(ids.size()) < n_before,
                "nothing would be left: all {} samples of the state are to be forgotten", n_before);
  std::sort(leaving.begin(), leaving.end());
  return serve({.request = "forget", .leaving = leaving, .arriving = {}}, options);
}

// The table with these samples behind those that it has; their rows are in the file of entry `entry`.
StateTable Prepared::extended(const SampleSource& arriving, int64_t entry, const RequestOptions& options) const {
  StateTable table = table_;
  table.row_parts.push_back({entry, arriving.size()});
  SafeTensorsWriter rows(entry_file(folder_, "rows", entry), {},
                         {{"rows", rows_->type(), {arriving.size(), rows_->classes(), rows_->parameters()}}});
  linearise(*checkpoint_.model, subset_, arriving, options.jacobian, [&](const LinearisedPart& part) {
    rows.append("rows", part.set.rows);
    const auto first = arriving.ids().begin() + part.first;
    table.append(part, {first, first + part.set.size()}, theta_star_);
  });
  rows.commit();
  return table;
}

RequestRecord Prepared::add(const SampleSource& samples, const RequestOptions& options) {
  require_usage(!options.dry_run, "samples are not added for a trial");
  require_usage(samples.size() > 0, "there is nothing to add: no sample was chosen");
  check_labels(samples.labels(), table_.logits.extent(1));
  std::set<int64_t> seen;
  for (const int64_t id : samples.ids()) {
    require_usage(seen.insert(id).second, "the id {} is given twice", id);
    const auto at = position_of_.find(id);
    require_usage(at == position_of_.end(), "the state {} has a sample with the id {} already{}", folder_, id,
                  at != position_of_.end() && !present_[static_cast<size_t>(at->second)]
                      ? ", which was forgotten; `restore` brings it back, and after a `purge` it is new"
                      : "");
  }
  const int64_t size = table_.size();
  StateTable table = extended(samples, next_entry(), options);
  Positions arriving;
  for (int64_t i = size; i < table.size(); i++) arriving.push_back(i);
  std::vector<bool> before = present_;
  before.resize(static_cast<size_t>(table.size()), false);
  return serve_with(std::move(table), std::move(before), {.request = "add", .leaving = {}, .arriving = arriving},
                    options);
}

// Rows of samples that arrive again, computed anew, against those that the state still has of them.
void Prepared::check_rows(const SampleSource& arriving, const Positions& positions,
                          const RequestOptions& options) const {
  linearise(*checkpoint_.model, subset_, arriving, options.jacobian, [&](const LinearisedPart& part) {
    const Positions here(positions.begin() + part.first, positions.begin() + part.first + part.set.size());
    const Tensor stored = rows_->read(here).to(DType::float64).contiguous();
    const double apart = norm(combine(part.set.rows.to(DType::float64).contiguous(), -1, stored)), size = norm(stored);
    require(apart <= rows_tolerance * size,
            "rows of samples that arrive again differ from those in {} by {:.2e} of their norm, at most {:.0e} is "
            "allowed",
            folder_, apart / size, rows_tolerance);
  });
}

// Samples of which only the journal has a hash, together with the others that left by the same entry after `entry`:
// they must have it. So all of these are needed.
void Prepared::check_returning(int64_t entry, const std::set<int64_t>& ids, const SampleSource& samples) const {
  const auto places = places_of(samples.ids());
  for (size_t k = static_cast<size_t>(entry); k < journal_->entries().size(); k++) {
    const JournalEntry& undone = journal_->entries()[k];
    if (std::ranges::none_of(undone.ids, [&](int64_t id) { return ids.contains(id); })) continue;
    std::vector<std::string> hashes;
    std::vector<int64_t> missing;
    for (const int64_t id : undone.ids) {
      if (const auto at = position_of_.find(id); at != position_of_.end())
        hashes.push_back(table_.sample_hashes[static_cast<size_t>(at->second)]);
      else if (const auto place = places.find(id); place != places.end())
        hashes.push_back(hash_of_sample(samples.at({place->second}), 0));
      else
        missing.push_back(id);
    }
    check_given(missing);
    const auto expected = undone.hashes.find("samples");
    require(expected != undone.hashes.end() && expected->second == sha256(joined(hashes)),
            "the samples with the ids {} are not those that left by entry {} of {}: the hash of them together differs",
            listed(undone.ids), undone.number, folder_);
  }
}

RequestRecord Prepared::restore(int64_t entry, const SampleSource& samples, const RequestOptions& options) {
  const auto& entries = journal_->entries();
  const auto last = static_cast<int64_t>(entries.size());
  require_usage(!options.dry_run, "samples are not restored for a trial");
  require_usage(entry >= 0 && entry <= last, "the journal of {} has {} entries, there is no entry {}", folder_, last,
                entry);
  const std::vector<int64_t> now = ids_at(present());
  const std::set<int64_t> there(now.begin(), now.end());
  std::set<int64_t> then = there, by_journal;  // whom the state does not know, or another by their id
  for (int64_t k = last; k > entry; k--) {
    const JournalEntry& undone = entries[static_cast<size_t>(k - 1)];
    for (const int64_t id : undone.arrived) {
      then.erase(id);
      if (undone.kind == "add") by_journal.insert(id);
    }
    then.insert(undone.ids.begin(), undone.ids.end());
  }
  Change change{.request = "restore", .leaving = {}, .arriving = {}, .restored_to = entry};
  for (const int64_t id : now)
    if (!then.contains(id)) change.leaving.push_back(position_of_.at(id));
  std::vector<int64_t> missing;
  Positions unknown;  // places in `samples`
  const auto places = places_of(samples.ids());
  for (const int64_t id : then) {
    if (there.contains(id)) continue;
    const auto place = places.find(id);
    if (place == places.end())
      missing.push_back(id);
    else if (const auto at = position_of_.find(id); at != position_of_.end())
      change.arriving.push_back(at->second);
    else
      unknown.push_back(place->second), by_journal.insert(id);
  }
  check_given(missing);
  std::erase_if(by_journal, [&](int64_t id) { return !then.contains(id); });
  check_returning(entry, by_journal, samples);
  require_usage(!change.leaving.empty() || !change.arriving.empty() || !unknown.empty(),
                "there is nothing to restore: the samples of {} are those that it had after entry {}", folder_, entry);
  std::sort(change.leaving.begin(), change.leaving.end()), std::sort(change.arriving.begin(), change.arriving.end());
  if (!change.arriving.empty()) check_rows(in_order(samples, change.arriving), change.arriving, options);
  if (unknown.empty()) return serve(change, options);

  std::sort(unknown.begin(), unknown.end());
  const SampleSource returning = chosen(samples, unknown);
  check_labels(returning.labels(), table_.logits.extent(1));
  const int64_t size = table_.size();
  StateTable table = extended(returning, last + 1, options);
  std::vector<bool> before = present_;
  before.resize(static_cast<size_t>(table.size()), false);
  for (int64_t i = size; i < table.size(); i++) change.arriving.push_back(i);
  return serve_with(std::move(table), std::move(before), change, options);
}

RequestRecord Prepared::purge(const RequestOptions& options) {
  require_usage(!options.dry_run, "nothing is purged for a trial");
  const Positions kept = present();
  require_usage(kept.size() < table_.ids.size(), "there is nothing to purge: {} knows of no sample that left", folder_);
  const auto entry = next_entry();
  RequestOptions told = options;
  if (!system_) told.phases.push_back(measure("read", [&] { load_system(); }));  // with the rows that left
  told.phases.push_back(measure("rewrite", [&] {
    SafeTensorsWriter rows(
        entry_file(folder_, "rows", entry), {},
        {{"rows", rows_->type(), {static_cast<int64_t>(kept.size()), rows_->classes(), rows_->parameters()}}});
    rows_->for_each(kept, [&](const Positions&, const Tensor& part) { rows.append("rows", part); });
    rows.commit();
  }));
  return serve_with(table_.only(kept, entry), std::vector<bool>(kept.size(), true),
                    {.request = "purge", .leaving = {}, .arriving = {}}, told);
}

bool Prepared::compact() {
  if (!system_) load_system();
  if (system_->pending_rows() == 0) return false;
  const auto entry = next_entry();
  std::unique_ptr<DowndatedSystem> system = std::move(system_);
  system->compact();
  const std::string hash = write_factor(folder_, entry, *system, b_);
  journal_->append({.kind = "compact", .representation = "factor", .hashes = {{"factor", hash}}});
  system_ = std::move(system);
  remove_superseded();
  return true;
}

}  // namespace fastntk
