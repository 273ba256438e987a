// Reading records: what verify, report and sign do with a record that somebody hands in.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/signature.h"

namespace fastntk {

/// A record taken apart.
struct RecordFile {
  std::string source;   ///< where it came from, for messages
  std::string text;     ///< as it was
  std::string result;   ///< keys in alphabetical order and no spaces: the bytes that journal and signature cover
  int64_t entry = 0;    ///< of the journal
  std::string made_by;  ///< program version and kernels
  bool intact = false;  ///< whether it is as it was written, by the SHA-256 that it carries
  struct Signature {
    std::string key_sha256, value;
  };
  std::optional<Signature> signature;
};
/// Error unless the text is a record: an object with `result`, which has an entry from 1 on, `measured` and `sha256`.
RecordFile parse_record(const std::string& text, const std::string& source);
RecordFile read_record(const std::string& path);

/// An Error unless the record is signed with the private key of this public one, and its result is as it was then.
void check_signature(const RecordFile& record, const SignatureKey& key);

/// What a model does before and after a request, by the names of docs/metrics.md with the set behind them: acc_forget,
/// loss_retain, …; n_SET samples. NaN where a set is empty.
struct RecordMetrics {
  std::map<std::string, double> before, after;
  std::map<std::string, double> linearisation_error;  ///< of the weights after, by set
};
/// The record's text with the part `metrics`, in the place of any that it had, and its hash made anew.
std::string with_metrics(const RecordFile& record, const RecordMetrics& metrics);

/// A field that two results do not agree on, as text; a field that one of them lacks is "missing".
struct FieldDifference {
  std::string field, got, expected;
};
/// The first field, in the order of the record, on which two results (JSON objects) differ: anything but equal numbers
/// and texts. With a tolerance, numbers with a fraction may differ by that much of the larger one. Fields in
/// `unless` are left out.
std::optional<FieldDifference> first_difference(const std::string& got, const std::string& expected,
                                                double tolerance = 0, const std::vector<std::string>& unless = {});

}  // namespace fastntk
