// Per-sample Jacobians of a model's logits in the parameters of a subset: one reverse sweep gives the rows of a tile of
// samples for a stack of classes (per-sample leaves, stacked cotangents; docs/tape.md).
#pragma once
#include <functional>
#include <string>

#include "datasets/samples.h"
#include "models/pass.h"

namespace fastntk {

enum class Recompute : uint8_t { automatic, never, always };

struct JacobianOptions {
  /// Bytes of the model's device that the sweeps may use on top of the model, the inputs and the result; 0: no limit,
  /// but four fifths of what is free on a GPU. The plan adapts; on the CPU the bits do not change.
  size_t memory = 0;
  int64_t tile = 0;     ///< samples per sweep; 0: chosen from the size of the layers, so that they stay in cache
  int64_t classes = 0;  ///< cotangents per sweep; 0: all, unless memory forbids
  /// Whether blocks of the model run again instead of keeping what they computed (Pass::set_recompute). `automatic`:
  /// when a sweep of one sample and one class does not fit into `memory` otherwise.
  Recompute recompute = Recompute::automatic;
  /// Makes the pass over samples [first, first + count); Pass::per_sample if empty. Its variables begin with one
  /// per-sample leaf for each entry of the subset.
  std::function<Pass(Tape& tape, int64_t first, int64_t count)> pass = {};
  std::string title;  ///< of the progress lines; none if empty
};

/// How the sweeps will run. Error naming the smallest budget that would do when `memory` is too small for one sample
/// and class.
struct JacobianPlan {
  int64_t tile = 1, classes = 1;
  int64_t outputs = 0;  ///< C, logits per sample
  /// Cotangents per sample: C, or w where the model ends in a linear classifier on w < C features. Rows are computed
  /// for the features then, and multiplied by its weight.
  int64_t rows = 0;
  bool recompute = false;
  size_t bytes_per_thread = 0;  ///< estimate
};
JacobianPlan plan_jacobian(const Module& model, const Subset& subset, const Tensor& inputs,
                           const JacobianOptions& options);
/// The smallest `memory` for which there is a plan.
size_t least_jacobian_memory(const Module& model, const Subset& subset, const Tensor& inputs,
                             const JacobianOptions& options);

/// What a sweep hands out: samples [first, first + count), logits [count, C], rows [count, C, P] in the model's type
/// and in the memory of its device.
using RowSink = std::function<void(int64_t first, const Tensor& logits, const Tensor& rows)>;

/// Runs the sweeps over inputs [n, H, W, channels], tiles spread over the threads; `sink` is called from them, once per
/// tile. The inputs may be in any memory; a tile of them at a time goes to the model's device.
void jacobian_rows(const Module& model, const Subset& subset, const Tensor& inputs, const JacobianOptions& options,
                   const RowSink& sink);

/// Which algorithms rows are computed by: of convolutions, the precision of linear layers, the device. Rows by others
/// differ.
std::string row_arithmetic(Device device = Device::cpu);

/// All that the bits of rows depend on beside model and inputs: version of the program, instruction set, BLAS kernel
/// set, row_arithmetic, and which GPU.
std::string row_bits(Device device);

/// logits [n, C] and rows [n, C, P] in the memory of the inputs: row (i, c) is ∂f_c(x_i)/∂θ, columns in the order of
/// the subset.
struct Jacobian {
  Tensor logits, rows;
};
Jacobian jacobian(const Module& model, const Subset& subset, const Tensor& inputs, const JacobianOptions& options = {});

/// f [n, C] and J v [n, C] for v [P] (float64), by one forward pass and one JVP.
struct DirectionalDerivative {
  Tensor logits, derivative;
};
DirectionalDerivative directional_derivative(const Module& model, const Subset& subset, const Tensor& inputs,
                                             const Tensor& v);

}  // namespace fastntk
