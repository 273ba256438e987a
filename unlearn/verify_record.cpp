#include "unlearn/verify_record.h"

#include "engine/file.h"
#include "engine/sha256.h"
#include "unlearn/prepared_parts.h"

namespace fastntk {
namespace {

// Numbers computed by another route than the request's.
constexpr double tolerance = 1e-6;

// Another instruction set or BLAS rounds rows of float32 otherwise.
std::string elsewhere(const RecordFile& record) {
  return fmt::format("; the record was made by {}, this is {}", record.made_by, this_program());
}

}  // namespace

const JournalEntry& journal_entry(const RecordFile& record, const Prepared& state) {
  const auto& entries = state.journal().entries();
  require(record.entry <= static_cast<int64_t>(entries.size()), "{}: the field entry is {}, the journal of {} has {}",
          record.source, record.entry, state.folder(), entries.size());
  return entries[static_cast<size_t>(record.entry - 1)];
}

bool is_bound(const RecordFile& record, const Prepared& state) {
  const auto& hashes = journal_entry(record, state).hashes;
  const auto hash = hashes.find("result");
  return hash != hashes.end() && hash->second == sha256(record.result);
}

Verification verify_record(const RecordFile& record, const Prepared& state, const SampleSource& samples,
                           const JacobianOptions& options, int64_t drawn) {
  const bool bound = is_bound(record, state);
  // The state's own copy tells what was changed, at once and in every field.
  if (const std::string path = state.record_path(record.entry); !bound && file_exists(path)) {
    const RecordFile copy = read_record(path);
    if (const auto d = first_difference(record.result, copy.result); d && is_bound(copy, state))
      fail("{}: the field {} is {}, in the record that the journal of {} is bound to it is {}", record.source, d->field,
           d->got, state.folder(), d->expected);
  }
  const Prepared::Recomputed r = state.recompute(
      record.entry, samples,
      {.jacobian = options, .drawn = drawn, .seed = std::stoull(sha256(record.result).substr(0, 16), nullptr, 16)});
  require(r.rows_difference <= rows_tolerance,
          "{}: rows of {} samples, computed anew, differ from those in the state by {:.2e} of their norm, at most "
          "{:.0e} is allowed",
          record.source, std::min(drawn, r.expected.n_after), r.rows_difference, rows_tolerance);
  if (const auto d = first_difference(
          record.result, r.expected.result(), tolerance,
          {"representation", "relative_residual", "condition_bound", "smallest_eigenvalue", "newton", "most_affected"}))
    fail("{}: the field {} is {}, computed from the samples that remain it is {}{}", record.source, d->field, d->got,
         d->expected, record.made_by == this_program() ? "" : elsewhere(record));
  require(
      r.difference <= r.bound,
      "{}: the weights after entry {} are not those of the samples that remain: they differ by {:.2e} of θ_lin(D_r) "
      "− θ0, at most {:.2e} is allowed",
      record.source, record.entry, r.difference, r.bound);
  require(bound,
          "{} is not the record that the journal of {} is bound to for entry {}: the SHA-256 of its result differs",
          record.source, state.folder(), record.entry);
  require(record.intact, "{} is damaged: the SHA-256 that it carries is not that of its contents", record.source);
  return {.retained = r.expected.n_after,
          .difference = r.difference,
          .bound = r.bound,
          .condition = r.condition,
          .rows_difference = r.rows_difference};
}

void replay_record(const RecordFile& record, const Prepared& state, const SampleSource& samples,
                   const std::string& work, const JacobianOptions& options) {
  static_cast<void>(journal_entry(record, state));
  const SampleSource all = state.in_order(samples, state.present_after(0));
  const auto& checkpoint = state.checkpoint();
  std::string result;
  Prepared again =
      Prepared::prepare(work, checkpoint.model, checkpoint.metadata, state.subset().specification, state.theta0(), all,
                        state.loss(), state.ridge(), {.jacobian = options, .crossover = state.crossover()});
  for (int64_t k = 0; k < record.entry; k++) {
    const JournalEntry& asked = state.journal().entries()[static_cast<size_t>(k)];
    const RequestOptions sweeps{.jacobian = options};
    if (asked.kind == "compact")
      again.compact();
    else if (asked.kind == "add")
      result = again.add(state.in_order(samples, state.positions_of(asked.arrived)), sweeps).result();
    else if (asked.kind == "restore")
      result = again.restore(asked.to, samples, sweeps).result();
    else
      result = again.forget(asked.ids, sweeps).result();
  }
  if (const auto d = first_difference(record.result, result))
    fail("{}: the field {} is {}, the request made once more gives {}{}", record.source, d->field, d->got, d->expected,
         elsewhere(record));
}

}  // namespace fastntk
