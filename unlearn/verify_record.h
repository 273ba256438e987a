// Checking the record of a request: against the journal, against a computation from the samples that remain, and
// against the request made once more.
#pragma once
#include <string>

#include "unlearn/prepared.h"
#include "unlearn/record_file.h"

namespace fastntk {

/// The entry of the journal that the record is of; an Error where it has none of that number.
const JournalEntry& journal_entry(const RecordFile& record, const Prepared& state);
/// Whether the journal's entry has the hash of the record's result.
bool is_bound(const RecordFile& record, const Prepared& state);

/// What verify_record() found to agree.
struct Verification {
  int64_t retained = 0;        ///< samples
  double difference = 0;       ///< of θ, over ‖θ_lin(D_r) − θ0‖
  double bound = 0;            ///< max(1e-8, κ·1e-14)
  double condition = 0;        ///< κ
  double rows_difference = 0;  ///< where only some rows were computed: how far they are from the file's
};
/// Compares the record with the state's journal, and every field of `result` that follows from the samples that remain
/// with what they give: rows, A_r, b_r, θ and the changes of the logits are computed anew. `samples` need hold no
/// others. With `drawn` at 0 or more, rows are computed for so many samples only, drawn by the hash of the record's
/// result, and must agree with those in the state's file within 1e-5; the others come from there. An Error names the
/// first field that does not agree.
///
/// How the system was solved (the fields `representation`, `relative_residual`, `condition_bound`,
/// `smallest_eigenvalue` and `newton`) depends on D_f: these are covered by the journal's hash, and by replay_record().
Verification verify_record(const RecordFile& record, const Prepared& state, const SampleSource& samples,
                           const JacobianOptions& options = {}, int64_t drawn = -1);

/// Prepares the state once more in the new folder `work`, from all its samples, makes the requests up to the record's,
/// and compares every field of `result` bit for bit. An Error names the first that differs.
void replay_record(const RecordFile& record, const Prepared& state, const SampleSource& samples,
                   const std::string& work, const JacobianOptions& options = {});

}  // namespace fastntk
