// What a prepared state knows of a request beside the solution: the probe, the samples affected most, and all of it
// computed anew from the samples that remain.
#include <algorithm>
#include <cmath>
#include <unordered_map>

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

// Tensors [n₁, C], [n₂, C], … one below the other.
Tensor stacked(const std::vector<Tensor>& parts) {
  int64_t n = 0;
  for (const Tensor& part : parts) n += part.extent(0);
  if (n == 0) return {};
  Tensor out({n, parts[0].extent(1)}, DType::float64);
  int64_t at = 0;
  for (const Tensor& part : parts) {
    out.slice(0, at, at + part.extent(0)).copy_from(part);
    at += part.extent(0);
  }
  return out;
}

}  // namespace

std::string joined(const std::vector<std::string>& hashes) {
  std::string text;
  for (const std::string& h : hashes) text += h + "\n";
  return text;
}

Tensor linear_logits(const LinearisedSet& set, const Tensor& v) {
  return combine(set.logits.to(DType::float64).contiguous(), 1, rows_times(set, all_positions(set.size()), v));
}

Tensor residuals_at(const Loss& loss, const Tensor& logits, const std::vector<int64_t>& labels) {
  const int64_t C = logits.extent(1);
  Tensor out(logits.shape(), DType::float64);
  double* const r = out.mutable_data<double>();
  for (size_t i = 0; i < labels.size(); i++)
    loss.gradient(logits.data<double>() + static_cast<int64_t>(i) * C, C, labels[i], r + static_cast<int64_t>(i) * C);
  for (int64_t i = 0; i < out.elements(); i++) r[i] = -r[i];
  return out;
}

// What a record says before anything is computed: of entry `entry`, by which the samples with these ids leave and those
// at `retained` remain.
ForgetRecord Prepared::outline(int64_t entry, const std::vector<int64_t>& ids, const Positions& retained) const {
  const auto hash_of = [&](auto&& positions) {
    std::string text;
    for (const auto i : positions) text += sample_hashes_[static_cast<size_t>(i)] + "\n";
    return sha256(text);
  };
  std::vector<size_t> leaving;
  leaving.reserve(ids.size());
  for (const int64_t id : ids) leaving.push_back(position_of_.at(id));
  const auto n = static_cast<int64_t>(retained.size());
  return {.entry = entry,
          .ids = ids,
          .samples_sha256 = hash_of(leaving),
          .retained_sha256 = hash_of(retained),
          .data_sha256 = sha256(joined(sample_hashes_)),
          .previous_hash = entry == 1 ? "" : journal_->entries().at(static_cast<size_t>(entry - 2)).hash,
          .rule = find_loss(loss_).curvature_factor ? "newton-shift" : "shift",
          .loss = loss_,
          .subset = subset_.specification,
          .ridge = ridge_,
          .parameters = subset_.size(),
          .classes = logits_.extent(1),
          .n_before = n + static_cast<int64_t>(ids.size()),
          .n_after = n};
}

void Prepared::probe(const Tensor& theta, const std::vector<bool>& present, ForgetRecord& record) const {
  Positions kept, in_probe;
  for (size_t i = 0; i < probe_positions_.size(); i++)
    if (present[static_cast<size_t>(probe_positions_[i])]) {
      kept.push_back(probe_positions_[i]);
      in_probe.push_back(static_cast<int64_t>(i));
    }
  const Tensor direction = combine(theta, -1, theta_star_);
  std::vector<Tensor> predicted;
  rows_->for_each(kept, [&](const Positions& part, const Tensor& rows) {
    const LinearisedSet set = set_of(part, rows);
    predicted.push_back(rows_times(set, all_positions(set.size()), direction));
  });
  compare_on_probe(theta, kept, gather_rows(probe_inputs_, in_probe), gather_rows(logits_, kept), stacked(predicted),
                   record);
}

// The change of the network's logits from `star`, those at θ*, to θ on the samples at `kept`, whose inputs these are,
// beside what the linear model predicts.
void Prepared::compare_on_probe(const Tensor& theta, const Positions& kept, const Tensor& inputs, const Tensor& star,
                                const Tensor& predicted, ForgetRecord& record) const {
  if (kept.empty()) {
    record.advice = "prepare again: no sample of the probe is left, so the linearisation error cannot be measured";
    return;
  }
  const Model moved = checkpoint_.model.clone();
  scatter(*moved, subset_, theta);
  const Tensor now = predict(*moved, inputs).to(DType::float64).contiguous();
  const Tensor change = combine(now, -1, star);
  record.predicted_change = norm(predicted), record.actual_change = norm(change);
  const Tensor difference = combine(change, -1, predicted);
  const double error = norm(difference);
  for (int64_t i = 0; i < star.extent(0); i++) {
    const auto at = static_cast<size_t>(kept[static_cast<size_t>(i)]);
    record.probe.push_back({.id = ids_[at],
                            .label = labels_[at],
                            .predicted = norm(predicted.select(0, i)),
                            .actual = norm(change.select(0, i)),
                            .error = norm(difference.select(0, i))});
  }
  record.linearisation_error = error == 0 ? 0 : error / record.predicted_change;
  record.advice = record.linearisation_error >= 1 ? "retrain now: the linear model errs by as much as it predicts"
                  : record.linearisation_error >= 0.5
                      ? "re-linearise now: the linear model errs by more than half of what it predicts"
                      : "none needed";
}

LinearisedSet Prepared::set_of(const Positions& positions, const Tensor& rows) const {
  return {rows, gather_rows(logits_, positions), Tensor::from<int64_t>({rows.extent(0)}, labels_at(positions))};
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
      changes.push_back({.id = ids_[at], .label = labels_[at], .predicted = norm(predicted.select(0, i))});
    }
  });
  std::stable_sort(changes.begin(), changes.end(),
                   [](const SampleChange& a, const SampleChange& b) { return a.predicted > b.predicted; });
  changes.resize(std::min(changes.size(), static_cast<size_t>(count)));
  return changes;
}

SampleSource Prepared::in_order(const SampleSource& samples, const Positions& positions) const {
  std::unordered_map<int64_t, int64_t> position;
  for (size_t i = 0; i < samples.ids().size(); i++) position[samples.ids()[i]] = static_cast<int64_t>(i);
  Positions chosen;
  std::vector<int64_t> ids;
  std::vector<std::string> hashes;
  for (const int64_t i : positions) {
    const int64_t id = ids_[static_cast<size_t>(i)];
    const auto at = position.find(id);
    require(at != position.end(), "the sample with the id {} is needed, and is not among those given", id);
    chosen.push_back(at->second), ids.push_back(id), hashes.push_back(sample_hashes_[static_cast<size_t>(i)]);
  }
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
  const Tensor point = law.curvature_factor ? combine(reference_, 1, direction) : reference_;
  // Of those of the probe that remain: position, place among the retained, f(θ*) and J(θ − θ*).
  Positions kept, places;
  std::vector<Tensor> star, predicted;
  GramAccumulator accumulator(subset_.size(), 0);
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
      if (!std::binary_search(probe_positions_.begin(), probe_positions_.end(), position)) continue;
      kept.push_back(position), places.push_back(part.first + i), here.push_back(i);
    }
    if (here.empty()) return;
    star.push_back(gather_rows(set.logits, here).to(DType::float64).contiguous());
    predicted.push_back(rows_times(set, here, direction));
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
  out.theta = combine(law.curvature_factor ? stored : combine(theta_star_, -1, optimum_), 1, x.x);
  const double apart = norm(combine(out.theta, -1, stored));
  // θ0 may itself be the optimum.
  out.difference = apart == 0 ? 0 : apart / norm(combine(combine(point, 1, x.x), -1, theta0_));
  out.bound = std::max(1e-8, out.condition * 1e-14);
  if (entry == 0) return out;
  out.expected = outline(entry, journal_->entries()[static_cast<size_t>(entry - 1)].ids, present);
  const Tensor before = theta_after(entry - 1);
  out.expected.weights_before = sha256_of(before), out.expected.weights_after = sha256_of(stored);
  out.expected.update_norm = norm(combine(stored, -1, before));
  compare_on_probe(stored, kept, retained.at(places).inputs, stacked(star), stacked(predicted), out.expected);
  return out;
}

}  // namespace fastntk
