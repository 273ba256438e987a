// The sample database of the op tests. Adding an op = one struct in engine/ops and one entry here; op_checks.h makes
// the tests from it.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/op.h"
#include "engine/reference.h"

namespace fastntk::test {

/// How the elements of an input are drawn.
enum class Draw {
  normal,
  positive,  ///< in [0.5, 2.5)
  off_zero,  ///< normal, but at least 0.05 from zero
  distinct,  ///< a shuffled grid: any two differ by at least 0.02
  labels,    ///< int64, below Input::classes
};

struct Input {
  Shape shape;
  Draw draw = Draw::normal;
  bool differentiable = true;  ///< may be active; a label or a running mean may not
  int64_t classes = 0;
  /// The axis that the stride-0 layout repeats; by default the first one of more than one element. An axis along which
  /// equal values are a kink must not be it.
  int repeated_axis = first_axis;
  static constexpr int first_axis = -1;
};

using Values = std::vector<Variable>;
using Arrays = std::vector<Array>;

/// What one record keeps for its linear map, besides the active inputs' places on the tape.
struct Saved {
  uint32_t inputs = 0;  ///< bit i = input i
  bool output = false;
  std::vector<Shape> extras = {};
};

/// Input shapes that must be refused with an Error that names the op.
struct Refusal {
  std::vector<Shape> shapes;
  std::function<Variable(const Values&)> function = {};  ///< the sample's own unless given
};

struct Sample {
  std::string op = {};    ///< as registered; of a composition, the function's name
  std::string note = {};  ///< what is special here
  std::vector<Input> inputs = {};
  std::function<Variable(const Values&)> function = {};  ///< through the public interface
  std::function<Array(const Arrays&)> reference = {};
  std::function<Saved(ActiveSet)> saved = [](ActiveSet) { return Saved{}; };
  /// When not 0: axis 0 of an input is the sample axis if it has this extent, a parameter's if it has extent 1. Every
  /// such input is then tried as a per-sample leaf against a loop over samples.
  int64_t samples = 0;
  bool mixes_samples = false;  ///< then the per-sample leaf must be refused
  bool first_order_only = false;
  bool takes_integers = false;
  bool composition = false;  ///< a function made of ops, without an op of its own
  std::vector<Refusal> refusals = {};
  std::vector<std::string> helpers = {};  ///< other ops, whose records only lead to this one and are not looked at
  std::string called = op;                ///< the name in error messages
  double tolerance32 = 1e-5;              ///< relative to the largest value, in float32
  bool equal_bits = true;  ///< stacked = looped, and batch = loop over samples, to the bit (else to rounding)
  /// The distance of the point from the nearest kink; points nearer than 0.01 are drawn again.
  std::function<double(const Arrays&)> kink_distance = {};
  /// Holds a setting of the engine while the sample runs.
  std::function<std::shared_ptr<void>()> scope = {};
  /// Called with the tape after the sample has been recorded; mutation.h spoils the records here.
  std::function<void(Tape&)> recorded = {};
};

using Samples = std::vector<Sample>;
Samples elementwise_samples();
Samples activation_samples();
Samples select_samples();
Samples reduce_samples();
Samples shape_samples();
Samples linear_samples();
Samples softmax_samples();
Samples index_samples();
Samples loss_samples();
Samples pool_samples();
Samples convolution_samples();
Samples normalisation_samples();
Samples resize_samples();
Samples layer_norm_samples();
Samples attention_samples();
Samples rearrangement_samples();
Samples statistics_samples();
Samples einsum_samples();

/// All families.
Samples all_samples();

}  // namespace fastntk::test
