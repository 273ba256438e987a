// What an op is: one struct with a shape rule, a forward computation and its linear map, applied forwards (jvp) and
// backwards (vjp). docs/tape.md shows how to add one.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/variable.h"

namespace fastntk {

/// Bit i is set when input i depends on a leaf of the tape.
using ActiveSet = uint32_t;

/// The entry of an op in the table of ops: its name and its mathematics.
struct OpInfo {
  std::string name;
  std::string value;         ///< y as a formula of the inputs
  std::string differential;  ///< dy as a formula of their differentials
  bool host_only = false;    ///< runs on the CPU alone; inputs in the memory of another device are refused
};

/// Enters an op into the table; the reference stays valid. Every entry must have samples in the tests' sample database.
const OpInfo& register_op(OpInfo info);
/// All ops entered so far, by name.
std::vector<const OpInfo*> registered_ops();

/// What the linear map of a record needs, apart from extras: some of the inputs (bit i = input i) and perhaps the
/// output.
struct Needs {
  uint32_t inputs = 0;
  bool output = false;
};

struct Record;

/// A record as its op sees it when the linear map is applied. Asking for what needs() did not declare is an error.
class Linearisation {
 public:
  Linearisation(const Record& record, bool differentiable) : record_(record), differentiable_(differentiable) {}
  /// Saved values. When the application is itself being recorded (second order) they keep their place on the tape.
  Variable input(int i) const;
  Variable output() const;
  /// What forward() put aside, in its order.
  const Tensor& extra(int i) const;
  const Shape& input_shape(int i) const;
  const Shape& output_shape() const;
  int inputs() const;
  /// True when this application is being recorded, so that kernels without a derivative of their own must not be used.
  bool recording() const { return differentiable_; }
  bool active(int i) const;

 private:
  const Record& record_;
  bool differentiable_;
};

/// An op with its attributes (stride, axes, …) as data members. Conventions:
///  * axes are counted from the back; extra leading axes of cotangents and tangents (a stack of K) pass through;
///  * inputs broadcast over axes of extent 1; the vjp sums over them (sum_to in ops/reduce.h);
///  * tangents have the full shape of their input; an undefined one is zero;
///  * jvp and vjp are written in public ops, so that they can be recorded; one that calls a kernel directly says
///    first_order_only().
class Op {
 public:
  explicit Op(const OpInfo& info) : info_(info) {}
  virtual ~Op() = default;
  const std::string& name() const { return info_.name; }
  const OpInfo& info() const { return info_; }

  /// The attributes as text, e.g. "stride=2 padding=1".
  virtual std::string attributes() const { return {}; }
  /// The shape of the output; throws Error when the inputs do not fit.
  virtual Shape shape(std::span<const Shape> inputs) const = 0;
  /// What the linear map in the active inputs will ask for.
  virtual Needs needs(ActiveSet active) const = 0;
  /// Computes the output. When `active` is not empty, what the linear map needs besides inputs and output goes to
  /// `extras`.
  virtual Tensor forward(std::span<const Tensor> inputs, ActiveSet active, std::vector<Tensor>& extras) const = 0;
  /// Applies the linear map: tangents of the inputs (undefined = zero, at least one is defined) to the tangent of the
  /// output.
  virtual Variable jvp(const Linearisation& at, std::span<const Variable> tangents) const = 0;
  /// Applies its transpose: one cotangent per input, undefined where the input is not active.
  virtual std::vector<Variable> vjp(const Linearisation& at, const Variable& cotangent) const = 0;
  /// True when the linear map does not keep samples (axis 0 of the inputs) apart, so that per-sample leaves are
  /// refused.
  virtual bool mixes_samples(std::span<const Shape>) const { return false; }
  virtual bool first_order_only() const { return false; }

 protected:
  Op(const Op&) = default;
  Op& operator=(const Op&) = delete;

 private:
  const OpInfo& info_;
};

/// Computes an op and, when an input is active, records it on that input's tape.
Variable apply(std::shared_ptr<const Op> op, std::vector<Variable> inputs);

template <class O>
Variable apply(O op, std::vector<Variable> inputs) {
  return apply(std::shared_ptr<const Op>(std::make_shared<O>(std::move(op))), std::move(inputs));
}

}  // namespace fastntk
