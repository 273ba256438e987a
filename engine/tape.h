// The tape: a recorded forward pass is a linear map. Record once, then apply it forwards (jvp) or backwards (vjp) any
// number of times, with any number of stacked tangents or cotangents. docs/tape.md is the chapter.
#pragma once
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/op.h"

namespace fastntk {

/// One op applied at one point: all that its linear map needs, and nothing else.
struct Record {
  std::shared_ptr<const Op> op;
  ActiveSet active = 0;
  std::vector<int> inputs;  ///< slots on the tape, -1 for constants
  int output = -1;
  std::vector<Shape> input_shapes;
  Shape output_shape;
  DType dtype = DType::float32;
  std::vector<Variable> saved_inputs;  ///< undefined where not needed
  Variable saved_output;
  std::vector<Tensor> extras;
};

class Tape {
 public:
  struct Options {
    /// Looks at every output and every cotangent, and stops at the record that made the first NaN or infinity.
    bool trace_non_finite = false;
  };

  Tape() = default;
  explicit Tape(Options options) : options_(options) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// An active variable with this value. The name is for printing.
  Variable leaf(const Tensor& value, std::string name = {});
  /// A parameter of shape [1, …] as `samples` leaves of their own, [samples, …] with stride 0 (no copy): its cotangent
  /// is then the per-sample gradient. All per-sample leaves of a tape have the same number of samples; ops that mix
  /// samples are refused from then on.
  Variable per_sample_leaf(const Tensor& parameter, int64_t samples, std::string name = {});

  /// Applies the linear map to tangents of leaves, each of the leaf's shape or with the same extra leading axes [K, …].
  /// Returns one tangent per output, undefined where it is zero.
  std::vector<Variable> jvp(std::span<const std::pair<Variable, Variable>> leaf_tangents,
                            std::span<const Variable> outputs);
  Variable jvp(std::span<const std::pair<Variable, Variable>> leaf_tangents, const Variable& output);
  /// Applies the transposed map to a cotangent of `output` ([K, …] for K at once). Returns one cotangent per leaf asked
  /// for, undefined where it is zero. With `differentiable`, the application is itself recorded on this tape.
  std::vector<Variable> vjp(const Variable& output, const Variable& cotangent, std::span<const Variable> leaves,
                            bool differentiable = false);

  const std::vector<Record>& records() const { return records_; }
  /// 0 unless there are per-sample leaves.
  int64_t samples() const { return samples_; }
  /// Bytes kept alive by the records, each storage counted once; parameters and inputs they refer to included.
  size_t saved_bytes() const;
  /// A table of the records: op, attributes, inputs, output shape, bytes saved.
  std::string str() const;

 private:
  friend Variable apply(std::shared_ptr<const Op> op, std::vector<Variable> inputs);
  int new_slot() { return slots_++; }
  void check_ours(const Variable& v, const char* what) const;
  void check_finite(const Tensor& value, const char* what, size_t record) const;

  Options options_;
  std::vector<Record> records_;
  std::vector<std::pair<int, std::string>> leaves_;
  int slots_ = 0;
  int64_t samples_ = 0;
};

std::ostream& operator<<(std::ostream& out, const Tape& tape);

}  // namespace fastntk
