// Pass: how one forward pass treats the model: which parameters are variables of a tape and in what form, whether batch
// norm uses the statistics of the batch, and where dropout has its random numbers from.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>

#include "engine/random.h"
#include "engine/tape.h"
#include "models/peft.h"

namespace fastntk {

enum class Mode : uint8_t { eval, train };

/// Every parameter enters an op with an explicit leading axis: [1, …] for all samples, or [N, …] with one copy per
/// sample (stride 0, nothing is copied). A parameter outside the active subset is a constant: nothing that depends on
/// constants only is recorded, and no activation is saved for its sake.
class Pass {
 public:
  /// All parameters are constants; nothing is recorded.
  explicit Pass(Mode mode = Mode::eval) : mode_(mode) {}
  /// The parameters of `subset` are these variables, one per entry, each [1 or N, …]. They may be leaves, or computed
  /// from leaves of some other form.
  Pass(const Module& model, const Subset& subset, std::vector<Variable> variables, Mode mode = Mode::eval);

  /// The parameters of `subset` are leaves [1, …] of `tape`, whose cotangents are sums over the batch: for training.
  static Pass shared(const Module& model, const Subset& subset, Tape& tape, Mode mode = Mode::eval);
  /// The parameters of `subset` are leaves [samples, …] of `tape`, whose cotangents are per sample: for Jacobian rows.
  static Pass per_sample(const Module& model, const Subset& subset, Tape& tape, int64_t samples);

  Mode mode() const { return mode_; }
  /// Gives the layers of `model` that are random in train mode their numbers: the layer at position k of
  /// model.named_modules() has stream k of `random`, and the first sample of the batch is sample `first_sample` there.
  /// A step of training must not use the numbers of another, so `random` belongs to the step.
  void draw_from(const Module& model, const Random& random, int64_t first_sample = 0);
  struct Draws {
    Random random;
    int64_t first_sample;
  };
  /// What `layer` draws from; an error unless draw_from() was called with its model.
  Draws draws(const Module& layer) const;
  /// What a module uses in the place of its parameter: [1 or N, …].
  Variable parameter(const Parameter& parameter) const;
  /// The variables of the subset, one per entry and in its order, whether or not the pass has used them.
  std::span<const Variable> leaves() const { return variables_; }

  /// From now on `watcher` sees the weight and the input ([N, in] or [N, T, in]) of every Linear that this pass goes
  /// through; again where a block runs again. The gradient of one sample in a weight that is used once, on [N, in], is
  /// the product of its bias's gradient and this input, and need not be formed.
  void watch_linear(std::function<void(const Parameter& weight, const Tensor& input)> watcher) {
    watcher_ = std::move(watcher);
  }
  void saw_linear(const Parameter& weight, const Variable& input) const {
    if (watcher_) watcher_(weight, input.value);
  }

  /// With `on`, blocks keep only their inputs and run again when the tape is applied (engine/recompute.h): less memory,
  /// up to one more forward pass per application, the same bits.
  void set_recompute(bool on) { recompute_ = on; }
  /// What `module`, a block of the model, computes: forward(pass, inputs). Of the active parameters, forward may use
  /// only those of `module`; what else it depends on is among the inputs. Calls forward at once, and in a recomputed
  /// part again, for which the model must live as long as the tape.
  Variable block(const Module& module, const std::vector<Variable>& inputs,
                 std::function<Variable(const Pass&, const std::vector<Variable>&)> forward) const;
  /// False when a block runs again: running statistics stay as they are then.
  bool first_run() const { return first_run_; }

 private:
  Mode mode_;
  std::optional<Draws> draws_;
  std::unordered_map<const Module*, uint64_t> stream_;
  std::vector<Variable> variables_;
  std::unordered_map<const Parameter*, size_t> position_;
  std::function<void(const Parameter&, const Tensor&)> watcher_;
  bool recompute_ = false, first_run_ = true;
};

}  // namespace fastntk
