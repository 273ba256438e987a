#include "engine/recompute.h"

#include <algorithm>
#include <optional>

#include "engine/ops/elementwise.h"

namespace fastntk {
namespace {

// y = f(x₀, x₁, …);   dy = Σ ∂f/∂xᵢ dxᵢ, from a tape made anew.
struct Recompute final : Op {
  static inline const OpInfo& info =
      register_op({"recompute", "y = f(x₀, x₁, …)", "dy = Σ ∂f/∂xᵢ dxᵢ, f being recorded again"});
  Recompute(Function f, Tensor value, size_t bytes)
      : Op(info), f(std::move(f)), output(value.shape()), bytes(bytes), value_(std::move(value)) {}
  Function f;
  Shape output;
  size_t bytes;  // that the tape of f keeps, if it was recorded at once

  Shape shape(std::span<const Shape>) const override { return output; }
  Needs needs(ActiveSet) const override { return {.inputs = ~0U}; }
  // The value is there already, because f alone knows its shape. It is handed out once and not kept.
  Tensor forward(std::span<const Tensor>, ActiveSet, std::vector<Tensor>&) const override {
    return std::exchange(value_, {});
  }

  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Again again(*this, at);
    std::vector<std::pair<Variable, Variable>> tangents;
    for (size_t i = 0; i < t.size(); i++)
      if (t[i].defined()) tangents.emplace_back(again.inputs[i], t[i]);
    return again.y.active() ? again.tape.jvp(tangents, again.y) : Variable{};
  }

  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    if (at.recording()) return recorded_vjp(at, c);
    Again again(*this, at);
    return again.y.active() ? spread(at, again.tape.vjp(again.y, c, active(at, again.inputs)))
                            : std::vector<Variable>(again.inputs.size());
  }
  // On the tape of the inputs, so that their derivatives continue; copies of them tell this part from what made them.
  std::vector<Variable> recorded_vjp(const Linearisation& at, const Variable& c) const {
    std::vector<Variable> inputs;
    for (int i = 0; i < at.inputs(); i++) inputs.push_back(at.active(i) ? scale(at.input(i), 1) : at.input(i));
    const Variable y = f(inputs);
    return y.active() ? spread(at, y.tape->vjp(y, c, active(at, inputs), true)) : std::vector<Variable>(inputs.size());
  }

 private:
  struct Again {
    Tape tape;
    std::vector<Variable> inputs;
    Variable y;
    Again(const Recompute& op, const Linearisation& at) {
      for (int i = 0; i < at.inputs(); i++)
        inputs.push_back(at.active(i) ? tape.leaf(at.input(i).value) : at.input(i).constant());
      y = op.f(inputs);
      require(y.shape() == op.output, "recompute: the function gave {} at first and {} when it ran again",
              op.output.str(), y.shape().str());
    }
  };
  static std::vector<Variable> active(const Linearisation& at, const std::vector<Variable>& inputs) {
    std::vector<Variable> out;
    for (size_t i = 0; i < inputs.size(); i++)
      if (at.active(static_cast<int>(i))) out.push_back(inputs[i]);
    return out;
  }
  // One cotangent per active input to one per input.
  static std::vector<Variable> spread(const Linearisation& at, std::vector<Variable> cotangents) {
    std::vector<Variable> out(static_cast<size_t>(at.inputs()));
    size_t next = 0;
    for (size_t i = 0; i < out.size(); i++)
      if (at.active(static_cast<int>(i))) out[i] = std::move(cotangents[next++]);
    return out;
  }
  mutable Tensor value_;
};

}  // namespace

Variable recompute(const Function& f, const std::vector<Variable>& inputs) {
  const Tape* outer = nullptr;
  for (const Variable& v : inputs) {
    require(v.defined(), "recompute: an input is undefined");
    if (v.active()) outer = v.tape;
  }
  if (!outer) return f(inputs);
  Tensor value;
  size_t bytes = 0;
  if (outer->samples()) {
    // Recorded once, on a tape that has per-sample leaves too, so that what mixes samples is refused here.
    Tape tape;
    tape.per_sample_leaf(Tensor::zeros({1}), outer->samples());
    std::vector<Variable> leaves;
    for (const Variable& v : inputs) leaves.push_back(v.active() ? tape.leaf(v.value) : v);
    value = f(leaves).value;
    bytes = tape.saved_bytes();
  } else {
    std::vector<Variable> constants;
    for (const Variable& v : inputs) constants.push_back(v.constant());
    const Variable y = f(constants);
    require(!y.active(), "recompute: the function depends on a variable that is not among its inputs");
    value = y.value;
  }
  return apply(Recompute(f, std::move(value), bytes), inputs);
}

size_t recomputed_bytes(const Tape& tape) {
  size_t most = 0;
  for (const Record& r : tape.records())
    if (const auto* const op = dynamic_cast<const Recompute*>(r.op.get())) most = std::max(most, op->bytes);
  return most;
}

}  // namespace fastntk
