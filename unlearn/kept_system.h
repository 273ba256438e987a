// The system of a prepared state on the disk, so that no process has to factor anew what another has factored:
//
//   factor-NNNNNN.safetensors    A, the factor of A + ρI and b as they were at the last factorisation, by entry N of
//                                the journal (0: when the state was prepared)
//   pending-NNNNNN.safetensors   of a request N since then: the rows U K that Woodbury needs of it, and b
//
// The journal says by which entry the last factorisation was, and has the hash of each file.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "unlearn/downdate.h"
#include "unlearn/journal.h"

namespace fastntk {

/// FOLDER/KIND-NNNNNN.safetensors
std::string entry_file(const std::string& folder, const char* kind, int64_t entry, const char* ending = "safetensors");

/// Writes the file of a system that was just factored, tile by tile. Returns its SHA-256.
std::string write_factor(const std::string& folder, int64_t entry, const DowndatedSystem& system,
                         const Tensor& right_hand_side);
/// Writes the file of a request by which the last `rows` of the system's pending rows left. Returns its SHA-256.
std::string write_pending(const std::string& folder, int64_t entry, const DowndatedSystem& system, int64_t rows,
                          const Tensor& right_hand_side);

struct KeptSystem {
  std::unique_ptr<DowndatedSystem> system;
  Tensor right_hand_side;  ///< b [P]
};
/// The system after the last entry of the journal, the bits of a process that made all requests. `first_hash` is that
/// of factor-000000, `rows_of` gives the rows [..., P] that left by an entry. Error where a file has another hash.
KeptSystem read_kept_system(const std::string& folder, const Journal& journal, const std::string& first_hash,
                            int64_t size, double ridge, int64_t crossover,
                            const std::function<Tensor(const JournalEntry&)>& rows_of);

/// What of a state is needed beside factors and pending rows.
struct NeededFiles {
  int64_t table = 0;          ///< the entry that wrote the table
  std::vector<int64_t> rows;  ///< the entries that wrote the rows that it has
  int64_t first_weights = 0;  ///< weights of this entry and later ones
};
/// Removes files that are needed no more, and half-written ones; for the one writer of the state. Those of entries that
/// the journal does not have stay: the next entry of that number writes them anew, and if it is the journal that lost
/// lines, they are needed.
void remove_superseded_files(const std::string& folder, const Journal& journal, const NeededFiles& needed);

}  // namespace fastntk
