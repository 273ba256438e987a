// What a prepared state knows of its samples and of the point where they are linearised.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "unlearn/prepared_rows.h"
#include "unlearn/row_file.h"

namespace fastntk {

/// One entry per sample, in the order in which the state has had them: those that were prepared, then those that came
/// later. Its file, state-NNNNNN.safetensors, is written when the state is prepared (0) and by each entry N of the
/// journal by which samples come that it has not, or are purged.
struct StateTable {
  /// rows-NNNNNN.safetensors, and of how many samples it has the rows.
  struct RowPart {
    int64_t entry = 0, count = 0;
  };

  std::vector<int64_t> ids, labels;
  std::vector<bool> present;  ///< after the entry that wrote the file
  std::vector<std::string> sample_hashes, row_hashes;
  std::vector<RowPart> row_parts;
  Tensor logits;  ///< f(θ*) [n, C] float64
  /// Where A and b are taken: θ0 (squared error), or the optimum on D of the linearised model [P]; the linear model's
  /// logits there [n, C]; and the step x from there to the optimum on D, (A + ρI) x = b [P].
  Tensor reference, reference_logits, optimum;
  Tensor probe_inputs;
  Positions probe_positions;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  /// The same samples at these ascending positions alone, whose rows are in the file of entry `entry`.
  StateTable only(const Positions& kept, int64_t entry) const;
  /// One more sample for each of the part, which is linearised at θ*.
  void append(const LinearisedPart& part, const std::vector<int64_t>& part_ids, const Tensor& theta_star);
  /// The files of rows in `folder`, opened.
  std::unique_ptr<RowFile> open_rows(const std::string& folder, int64_t parameters) const;

  /// Writes the file of entry `entry` of the state in `folder`. Returns its SHA-256.
  std::string save(const std::string& folder, int64_t entry) const;
  /// Reads it; an Error where it has another hash.
  static StateTable load(const std::string& folder, int64_t entry, const std::string& hash);
  /// The same from the file at `path`, whatever its hash: an Error where its parts do not fit one another.
  static StateTable read(const std::string& path);
};

}  // namespace fastntk
