// The planner of kernel computations: which representation of Θ = J Jᵀ, where the rows of J are kept, and what that
// takes in bytes and flops. A function of numbers alone; docs/ntk.md explains the reasoning.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fastntk {

/// How the kernel is held:
///   thin         J in memory, and from it Θ (or products with Θ)
///   thin_file    J in a file, read back as it is needed
///   primal       JᵀJ [P, P], which has the eigenvalues of Θ that are not zero
///   dual         Θ = JJᵀ, half of it where both sets are one; rows that do not fit are computed again
///   matrix_free  neither: products with Θ by one JVP and one VJP of every batch
enum class NtkRepresentation : uint8_t { automatic, thin, thin_file, primal, dual, matrix_free };
/// "thin-file" and so on. UsageError listing the names for any other text.
NtkRepresentation ntk_representation(const std::string& name);
std::string name_of(NtkRepresentation representation);

/// What is wanted of the kernel: its elements, all of its eigenvalues, its largest ones, or solutions of
/// (JᵀJ + ρI) x = b.
enum class NtkPurpose : uint8_t { block, spectrum, top_eigenvalues, solve };

/// What the plan is made from.
struct NtkProblem {
  NtkPurpose purpose = NtkPurpose::block;
  bool elements = false;  ///< also the elements of Θ, beside eigenvalues
  int64_t samples = 0;
  int64_t samples2 = 0;         ///< of the second set; 0: both are the first, and Θ is symmetric
  int64_t rows = 1;             ///< of Θ per sample: C, or 1 for the class-averaged kernel
  int64_t columns = 0;          ///< P
  int64_t stored_rows = 0;      ///< of J per sample; 0: `rows`
  int64_t cotangents = 0;       ///< of a sample's sweep; 0: `stored_rows`
  int64_t stored = 0;           ///< numbers of J per row that are kept; 0: P
  int64_t product_columns = 0;  ///< multiplications for one element of Θ; 0: P
  int64_t sample_extra = 0;     ///< further numbers that are kept per sample
  int64_t element = 4;          ///< bytes of a number of J
  bool float_products = false;  ///< rows are multiplied in float32
  double forward_flops = 0;     ///< F, of one sample
  size_t sweep_bytes = 0;       ///< of all threads while they compute rows
  size_t product_bytes = 0;     ///< of all threads while they multiply vectors by JᵀJ, matrix-free
  int64_t sweep_samples = 1;    ///< that all threads compute at once
  int threads = 1;
  int64_t vectors = 0;       ///< eigenvalues (top_eigenvalues) or right-hand sides (solve) that are wanted
  int64_t iterations = 100;  ///< guess of the steps of an iterative method
  size_t memory = 0;         ///< bytes that may be taken, of the host and of a device each; 0: no limit
  /// The model is on another device: rows are made and multiplied there, and `sweep_bytes` and `product_bytes` are its.
  bool on_device = false;
  size_t device_memory = 0;  ///< bytes that are free there; 0: no bound known
  bool file = true;          ///< whether rows may go to a file
};

/// One way to do it.
struct NtkPlan {
  NtkRepresentation representation = NtkRepresentation::dual;
  bool possible = true;
  std::string obstacle;         ///< why it is not possible
  double bytes = 0, flops = 0;  ///< predicted: peak of the allocator beyond what is there before, and operations
  double device_bytes = 0;      ///< the same peak in the memory of the device
  double double_flops = 0;      ///< those of `flops` that are in float64: products of rows, and what follows them
  double disk_bytes = 0;        ///< written to and read from a file of rows
  double least_bytes = 0;       ///< the smallest budget that it would fit into
  int64_t resident_tiles = 0, streamed_tiles = 0;  ///< tiles of rows of Θ that are in memory, and that pass by
  double row_passes = 1;                           ///< how often a row of J is computed, on average
};

/// The choice, and what it was chosen from.
struct NtkChoice {
  NtkPlan plan;
  std::vector<NtkPlan> candidates;
  std::string reason;
  /// A table of the candidates, and the choice.
  std::string str() const;
};

/// The fastest plan within the budget (an operation in float64 counts as two, a byte through the disk as 200), or the
/// one that was asked for. UsageError naming the smallest budget that would do if none fits, or why what was asked for
/// cannot be.
NtkChoice plan_ntk(const NtkProblem& problem, NtkRepresentation asked = NtkRepresentation::automatic);

/// Of this much free memory of a device, what a plan may take: four fifths.
inline size_t ntk_share_of(size_t free_bytes) { return free_bytes / 5 * 4; }

/// Tiles of Θ from one step to the next, between which progress is kept.
inline constexpr int64_t ntk_tiles_per_step = 64;
/// How many tiles of either side a thread multiplies with one another, rows × columns of them being there: the more,
/// the less often a panel of rows is converted, but every thread should have some of the work.
int64_t ntk_tiles_together(int64_t rows, int64_t columns, int threads);

/// Samples that the rows of tiles [from, to) of Θ belong to, as [first, last): tiles of `extent` rows end where they
/// end, also within a sample.
struct SampleRange {
  int64_t first, last;
  int64_t size() const { return last - first; }
};
SampleRange samples_of_tiles(int64_t from, int64_t to, int64_t extent, int64_t rows_per_sample, int64_t samples);

}  // namespace fastntk
