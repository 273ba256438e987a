// The rows that a prepared state is made of, computed in pieces: a run that was interrupted goes on where it stopped.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "datasets/samples.h"
#include "engine/rank.h"
#include "unlearn/jacobian.h"
#include "unlearn/rows.h"

namespace fastntk {

/// Samples [first, first + set.size()) of a source, linearised at the model's present weights.
struct LinearisedPart {
  int64_t first = 0;
  LinearisedSet set;
  std::vector<std::string> sample_hashes;  ///< hash_of_sample of each
};

/// SHA-256 of a sample: its id, its label and its inputs.
std::string hash_of_sample(const Samples& samples, int64_t position);

/// Hands the samples of `source` to `see`, in order and some at a time.
using SeePart = std::function<void(const LinearisedPart& part)>;
void linearise(const Module& model, const Subset& subset, const SampleSource& source, const JacobianOptions& options,
               const SeePart& see);

/// The same by way of a file of pieces: a computation that was interrupted is gone on with by the next one with the
/// same `key`. `see` is called when all is computed. The file stays; it can be removed once what was made of the rows
/// is on the disk. An Error if it has rows of other samples.
///
/// What ranks have left beside the file is moved into it first.
void linearise_resumably(const Module& model, const Subset& subset, const SampleSource& source,
                         const JacobianOptions& options, const std::string& file, const std::string& key,
                         const SeePart& see);
/// The rows of one rank: samples [first, last) in pieces in a file of its own, for the run without a rank that comes
/// after all of them. Resumable as well.
RankFile linearise_rank(const Module& model, const Subset& subset, const SampleSource& source,
                        const JacobianOptions& options, const std::string& file, const std::string& key,
                        const Rank& rank);

}  // namespace fastntk
