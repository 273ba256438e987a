#include "engine/mutation.h"

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

}  // namespace

Sample mutated(Sample sample, const Mutation& mutation) {
  sample.recorded = [name = sample.op, mutation](Tape& tape) {
    for (const Record& record : tape.records())
      if (record.op->name() == name)
        const_cast<Record&>(record).op = std::make_shared<Mutant>(record.op, mutation);  // NOLINT: tests only
  };
  return sample;
}

}  // namespace fastntk::test
