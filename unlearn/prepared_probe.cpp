// What a prepared state knows of a request beside the solution: the probe, the samples affected most, and all of it
// computed anew from the samples that remain.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/gram.h"
#include "engine/progress.h"
#include "engine/random.h"
#include "engine/sha256.h"
#include "training/gradient.h"
#include "unlearn/metrics.h"
#include "unlearn/prepared.h"
#include "unlearn/prepared_parts.h"
#include "unlearn/prepared_rows.h"
#include "unlearn/state_files.h"
#include "unlearn/weighted_rows.h"

namespace fastntk {
namespace {

// ‖UᵀU − VᵀV‖_F / ‖VᵀV‖_F for rows U and V [m, P], by products among rows, which are few.
double gram_distance(const Tensor& u, const Tensor& v) {
  const auto squared = [](const Tensor& a, const Tensor& b) {
    const double size = norm(dual_gram(a, b).contiguous());
    return size * size;
  };
  const double size = squared(v, v);
  const double apart = squared(u, u) - 2 * squared(u, v) + size;
  return size == 0 ? 0 : std::sqrt(std::max(0.0, apart) / size);
}

}  // namespace

std::string listed(const std::vector<int64_t>& ids) {
  constexpr size_t most = 10;
  std::string text;
  for (size_t i = 0; i < std::min(most, ids.size()); i++) text += (i == 0 ? "" : ", ") + std::to_string(ids[i]);
  return ids.size() > most ? fmt::format("{} and {} more", text, ids.size() - most) : text;
}

std::unordered_map<int64_t, int64_t> places_of(const std::vector<int64_t>& ids) {
  std::unordered_map<int64_t, int64_t> out;
  for (size_t i = 0; i < ids.size(); i++) out[ids[i]] = static_cast<int64_t>(i);
  return out;
}

void check_given(const std::vector<int64_t>& missing) {
  if (missing.size() == 1) fail("the sample with the id {} is needed, and is not among those given", missing[0]);
  require(missing.empty(), "{} samples are needed that are not among those given, those with the ids {}",
          missing.size(), listed(missing));
}

void check_labels(const Tensor& labels, int64_t classes) {
  for (const int64_t label : labels.to_vector<int64_t>())
    require_usage(label >= 0 && label < classes, "a sample has the label {}, the model has {} classes", label, classes);
}

const Tensor& tensor_in(const SafeTensors& file, const char* name, const std::string& path) {
  const Tensor* const t = file.find(name);
  require(t != nullptr, "{} has no tensor '{}'", path, name);
  return *t;
}

Tensor stacked(const std::vector<Tensor>& parts) {
  int64_t n = 0;
  for (const Tensor& part : parts) n += part.extent(0);
  if (n == 0) return {};
  Shape shape = parts[0].shape();
  shape[0] = n;
  Tensor out(shape, parts[0].dtype());
  int64_t at = 0;
  for (const Tensor& part : parts) {
    out.slice(0, at, at + part.extent(0)).copy_from(part);
    at += part.extent(0);
  }
  return out;
}

std::string joined(const std::vector<std::string>& hashes) {
  std::string text;
  for (const std::string& h : hashes) text += h + "\n";
  return text;
}

Tensor linear_logits(const LinearisedSet& set, const Tensor& v) {
  return combine(set.logits.to(DType::float64).contiguous(), 1, rows_times(set, all_positions(set.size()), v));
}

// What a record says before anything is computed: of an entry after which the samples at `retained` are there.
RequestRecord Prepared::outline(const JournalEntry& entry, const Positions& retained) const {
  const auto hash_of = [&](const Positions& positions) {
    std::string text;
    for (const auto i : positions) text += table_.sample_hashes[static_cast<size_t>(i)] + "\n";
    return sha256(text);
  };
  const auto n = static_cast<int64_t>(retained.size());
  return {.request = entry.kind,
          .entry = entry.number,
          .ids = entry.ids,
          .arrived = entry.arrived,
          .restored_to = entry.to,
          .samples_sha256 = hash_of(positions_of(entry.ids)),
          .arrived_sha256 = hash_of(positions_of(entry.arrived)),
          .retained_sha256 = hash_of(retained),
          .data_sha256 = data_hash_,
          .previous_hash = entry.number == 1 ? "" : journal_->entries().at(static_cast<size_t>(entry.number - 2)).hash,
          .rule = find_loss(loss_).curvature_factor ? "newton-shift" : "shift",
          .loss = loss_,
          .subset = subset_.specification,
          .ridge = ridge_,
          .parameters = subset_.size(),
          .classes = table_.logits.extent(1),
          .n_before = n + static_cast<int64_t>(entry.ids.size()) - static_cast<int64_t>(entry.arrived.size()),
          .n_after = n};
}

Positions Prepared::positions_of(const std::vector<int64_t>& ids) const {
  Positions out;
  for (const int64_t id : ids) out.push_back(position_of_.at(id));
  return out;
}

void Prepared::probe(const Tensor& theta, const std::vector<bool>& present, const JacobianOptions& sweeps,
                     RequestRecord& record) const {
  OnProbe on;
  Positions in_probe;
  for (size_t i = 0; i < table_.probe_positions.size(); i++)
    if (const int64_t position = table_.probe_positions[i]; present[static_cast<size_t>(position)])
      on.kept.push_back(position), in_probe.push_back(static_cast<int64_t>(i));
  const Tensor direction = combine(theta, -1, theta_star_);
  std::vector<Tensor> predicted;
  rows_->for_each(on.kept, [&](const Positions& part, const Tensor& rows) {
    const LinearisedSet set = set_of(part, rows);
    predicted.push_back(rows_times(set, all_positions(set.size()), direction));
    if (!on.rows.defined()) on.rows = rows.slice(0, 0, std::min(rows.extent(0), matrix_probe_size));
  });
  on.inputs = gather_rows(table_.probe_inputs, in_probe), on.star = gather_rows(table_.logits, on.kept);
  on.predicted = stacked(predicted);
  compare_on_probe(theta, on, sweeps, record);
}

// The change of the network's logits and of A from θ* to θ, beside what the linear model predicts: that, and no change.
void Prepared::compare_on_probe(const Tensor& theta, const OnProbe& on, const JacobianOptions& sweeps,
                                RequestRecord& record) const {
  if (on.kept.empty()) {
    record.advice = "prepare again: no sample of the probe is left, so the linearisation error cannot be measured";
    return;
  }
  const Model moved = checkpoint_.model.clone();
  scatter(*moved, subset_, theta);
  const Tensor now = predict(*moved, on.inputs).to(DType::float64).contiguous();
  const Tensor change = combine(now, -1, on.star);
  record.predicted_change = norm(on.predicted), record.actual_change = norm(change);
  const Tensor difference = combine(change, -1, on.predicted);
  const double error = norm(difference);
  for (int64_t i = 0; i < on.star.extent(0); i++) {
    const auto at = static_cast<size_t>(on.kept[static_cast<size_t>(i)]);
    record.probe.push_back({.id = table_.ids[at],
                            .label = table_.labels[at],
                            .predicted = norm(on.predicted.select(0, i)),
                            .actual = norm(change.select(0, i)),
                            .error = norm(difference.select(0, i))});
  }
  // Where θ is θ* but for rounding there is no change to be wrong about.
  const double rounding = checkpoint_.model->dtype() == DType::float64 ? std::numeric_limits<double>::epsilon()
                                                                       : std::numeric_limits<float>::epsilon();
  const double resolution = 16 * rounding * norm(on.star);
  record.linearisation_error =
      record.predicted_change <= resolution && record.actual_change <= resolution ? 0 : error / record.predicted_change;
  const int64_t few = on.rows.extent(0);
  const Positions first(on.kept.begin(), on.kept.begin() + few);
  const Tensor rows = jacobian(*moved, subset_, on.inputs.slice(0, 0, few).contiguous(), sweeps).rows;
  record.matrix_distance = gram_distance(weighted(first, rows), weighted(first, on.rows));
  record.advice =
      record.linearisation_error >= 1 ? "retrain now: the linear model errs by as much as it predicts"
      : record.linearisation_error >= 0.5
          ? "re-linearise now: the linear model errs by more than half of what it predicts"
      : record.matrix_distance >= 0.5
          ? "re-linearise now: A at the present weights differs from the one that is kept by more than half of it"
          : "none needed";
}

LinearisedSet Prepared::set_of(const Positions& positions, const Tensor& rows) const {
  return {rows, gather_rows(table_.logits, positions), Tensor::from<int64_t>({rows.extent(0)}, labels_at(positions))};
}

std::vector<SampleChange> Prepared::most_affected(const Tensor& theta, const Positions& retained, int64_t count) const {
  const Tensor direction = combine(theta, -1, theta_);
  std::vector<SampleChange> changes;
  rows_->for_each(retained, [&](const Positions& part, const Tensor& rows) {
    check_interrupt();
    const LinearisedSet set = set_of(part, rows);
    const Tensor predicted = rows_times(set, all_positions(set.size()), direction);
    for (int64_t i = 0; i < set.size(); i++) {
      const auto at = static_cast<size_t>(part[static_cast<size_t>(i)]);
      changes.push_back({.id = table_.ids[at], .label = table_.labels[at], .predicted = norm(predicted.select(0, i))});
    }
  });
  std::stable_sort(changes.begin(), changes.end(),
                   [](const SampleChange& a, const SampleChange& b) { return a.predicted > b.predicted; });
  changes.resize(std::min(changes.size(), static_cast<size_t>(count)));
  return changes;
}

SampleSource Prepared::in_order(const SampleSource& samples, const Positions& positions) const {
  const auto position = places_of(samples.ids());
  Positions chosen;
  std::vector<int64_t> ids, missing;
  std::vector<std::string> hashes;
  for (const int64_t i : positions) {
    const int64_t id = table_.ids[static_cast<size_t>(i)];
    const auto at = position.find(id);
    if (at == position.end()) {
      missing.push_back(id);
      continue;
    }
    chosen.push_back(at->second), ids.push_back(id), hashes.push_back(table_.sample_hashes[static_cast<size_t>(i)]);
  }
  check_given(missing);
  const Tensor labels = gather_rows(samples.labels(), chosen);
  return {labels, ids, [=](const Positions& wanted) {
            Positions places;
            for (const int64_t i : wanted) places.push_back(chosen[static_cast<size_t>(i)]);
            const Samples made = samples.at(places);
            for (size_t i = 0; i < wanted.size(); i++)
              require(hash_of_sample(made, static_cast<int64_t>(i)) == hashes[static_cast<size_t>(wanted[i])],
                      "the sample with the id {} is not the one that the state was prepared with: its hash differs",
                      made.ids[i]);
            return made.inputs;
          }};
}

// Hands out the rows of the file; those of the samples drawn are computed as well and compared.
double Prepared::linearise_from_file(const Positions& present, const SampleSource& retained,
                                     const RecomputeOptions& options, const SeePart& see) const {
  Positions drawn = Random(options.seed).permutation(retained.size());
  drawn.resize(static_cast<size_t>(std::min(retained.size(), options.drawn)));
  std::sort(drawn.begin(), drawn.end());
  Progress progress("rows", static_cast<int64_t>(drawn.size()), "samples");
  double difference = 0, size = 0;
  int64_t first = 0;
  size_t next = 0;  // in `drawn`
  rows_->for_each(present, [&](const Positions& part, const Tensor& rows) {
    check_interrupt();
    see({first, set_of(part, rows), {}});
    Positions here, places;
    for (; next < drawn.size() && drawn[next] < first + rows.extent(0); next++)
      here.push_back(drawn[next] - first), places.push_back(drawn[next]);
    first += rows.extent(0);
    if (here.empty()) return;
    const Tensor again = jacobian(*checkpoint_.model, subset_, retained.at(places).inputs, options.jacobian)
                             .rows.to(DType::float64)
                             .contiguous();
    const Tensor stored = gather_rows(rows, here).to(DType::float64).contiguous();
    difference += std::pow(norm(combine(again, -1, stored)), 2), size += std::pow(norm(stored), 2);
    progress.advance(static_cast<int64_t>(here.size()));
  });
  return size == 0 ? 0 : std::sqrt(difference / size);
}

Prepared::Recomputed Prepared::recompute(int64_t entry, const SampleSource& samples,
                                         const RecomputeOptions& options) const {
  const Positions present = present_after(entry);
  const SampleSource retained = in_order(samples, present);
  // The squared error: the whole step from θ0. Else one step of Newton's method from the optimum that is claimed.
  const Loss& law = find_loss(loss_);
  const Tensor stored = theta_after(entry), direction = combine(stored, -1, theta_star_);
  const Tensor point = law.curvature_factor ? combine(table_.reference, 1, direction) : table_.reference;
  OnProbe on;
  Positions places;  // of those of the probe, among the retained
  std::vector<Tensor> star, predicted, rows;
  int64_t rows_kept = 0;
  GramAccumulator accumulator(subset_.size(), 0, checkpoint_.model->device());
  Tensor b = Tensor::zeros({subset_.size()}, DType::float64);
  const auto see = [&](const LinearisedPart& part) {
    const LinearisedSet& set = part.set;
    const Tensor at = linear_logits(set, combine(point, -1, theta_star_));
    const std::vector<int64_t> labels = set.labels.to_vector<int64_t>();
    accumulator.add(weighted_rows(set.rows, at, labels, law));
    b = combine(b, 1, transposed_rows_times(set, all_positions(set.size()), residuals_at(law, at, labels)));
    Positions here;
    for (int64_t i = 0; i < set.size(); i++) {
      const int64_t position = present[static_cast<size_t>(part.first + i)];
      if (!std::binary_search(table_.probe_positions.begin(), table_.probe_positions.end(), position)) continue;
      on.kept.push_back(position), places.push_back(part.first + i), here.push_back(i);
    }
    if (here.empty()) return;
    star.push_back(gather_rows(set.logits, here).to(DType::float64).contiguous());
    predicted.push_back(rows_times(set, here, direction));
    here.resize(static_cast<size_t>(std::min(static_cast<int64_t>(here.size()), matrix_probe_size - rows_kept)));
    rows_kept += static_cast<int64_t>(here.size());
    if (!here.empty()) rows.push_back(gather_rows(set.rows, here));
  };
  double rows_difference = 0;
  if (options.drawn < 0)
    linearise(*checkpoint_.model, subset_, retained, options.jacobian, see);
  else
    rows_difference = linearise_from_file(present, retained, options, see);
  b = combine(b, -ridge_, combine(point, -1, theta0_));
  Gram gram = std::move(accumulator).finish();
  const DowndatedSystem system(std::move(gram.matrix), ridge_, 0);
  const Refinement x = system.solve(b);
  Recomputed out{.condition = system.condition_bound(),
                 .relative_residual = x.relative_residual,
                 .rows_difference = rows_difference};
  out.theta = combine(law.curvature_factor ? stored : combine(theta_star_, -1, table_.optimum), 1, x.x);
  const double apart = norm(combine(out.theta, -1, stored));
  // θ0 may itself be the optimum.
  out.difference = apart == 0 ? 0 : apart / norm(combine(combine(point, 1, x.x), -1, theta0_));
  out.bound = std::max(1e-8, out.condition * 1e-14);
  if (entry == 0) return out;
  const JournalEntry& asked = journal_->entries()[static_cast<size_t>(entry - 1)];
  out.expected = outline(asked, present);
  const Tensor before = asked.kind == "purge" ? stored : theta_after(entry - 1);
  out.expected.weights_before = sha256_of(before), out.expected.weights_after = sha256_of(stored);
  out.expected.update_norm = norm(combine(stored, -1, before));
  on.inputs = retained.at(places).inputs;
  on.star = stacked(star), on.predicted = stacked(predicted), on.rows = stacked(rows);
  compare_on_probe(stored, on, options.jacobian, out.expected);
  return out;
}

}  // namespace fastntk
