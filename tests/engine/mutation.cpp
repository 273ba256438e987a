#include "engine/mutation.h"

#include <algorithm>

#include "engine/ops/elementwise.h"

namespace fastntk::test {
namespace {

class Mutant final : public Op {
 public:
  Mutant(std::shared_ptr<const Op> op, const Mutation& mutation)
      : Op(op->info()), op_(std::move(op)), mutation_(mutation) {}

  std::string attributes() const override { return op_->attributes(); }
  Shape shape(std::span<const Shape> in) const override { return op_->shape(in); }
  Needs needs(ActiveSet active) const override { return op_->needs(active); }
  Tensor forward(std::span<const Tensor> in, ActiveSet active, std::vector<Tensor>& extras) const override {
    return op_->forward(in, active, extras);
  }
  bool mixes_samples(std::span<const Shape> in) const override { return op_->mixes_samples(in); }
  bool first_order_only() const override { return op_->first_order_only(); }

  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    const size_t i = mutation_.input;
    if (mutation_.map != Mutation::Map::jvp || !t[i].defined()) return op_->jvp(at, t);
    std::vector<Variable> others(t.begin(), t.end()), alone(t.size());
    others[i] = {};
    alone[i] = t[i];
    bool any = false;
    for (const Variable& v : others) any |= v.defined();
    return add_defined(any ? op_->jvp(at, others) : Variable{}, times_factor(op_->jvp(at, alone)));
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    std::vector<Variable> in = op_->vjp(at, c);
    if (mutation_.map == Mutation::Map::vjp) in[mutation_.input] = times_factor(in[mutation_.input]);
    return in;
  }

 private:
  Variable times_factor(const Variable& v) const {
    return v.defined() && mutation_.factor != 0 ? scale(v, mutation_.factor) : Variable{};
  }
  std::shared_ptr<const Op> op_;
  Mutation mutation_;
};

// Where the record has the sample's input `input`: some functions take constants (the statistics of batch norm) that
// are no inputs of their op.
size_t place_in(const Record& record, const Sample& sample, size_t input) {
  if (record.inputs.size() == sample.inputs.size()) return input;
  const auto differentiable = [](const Input& in) { return in.differentiable; };
  return static_cast<size_t>(
      std::count_if(sample.inputs.begin(), sample.inputs.begin() + static_cast<long>(input), differentiable));
}

}  // namespace

Sample mutated(Sample sample, const Mutation& mutation) {
  sample.recorded = [original = sample, mutation](Tape& tape) {
    for (const Record& record : tape.records()) {
      if (record.op->name() != original.op) continue;
      const Mutation here{mutation.map, place_in(record, original, mutation.input), mutation.factor};
      require(here.input < record.inputs.size(), "the record of {} has no input {}", original.op, here.input);
      const_cast<Record&>(record).op = std::make_shared<Mutant>(record.op, here);  // NOLINT: tests only
    }
  };
  return sample;
}

}  // namespace fastntk::test
