#include "models/pass.h"

#include "engine/recompute.h"

#include "engine/ops/elementwise.h"

namespace fastntk {
namespace {

template <class MakeLeaf>
std::vector<Variable> leaves_of(const Module& model, const Subset& subset, MakeLeaf&& make_leaf) {
  const auto parameters = parameters_of(model, subset);
  std::vector<Variable> leaves;
  for (size_t i = 0; i < parameters.size(); i++)
    leaves.push_back(make_leaf(parameters[i]->value.unsqueeze(0), subset.entries[i].name));
  return leaves;
}

}  // namespace

Pass::Pass(const Module& model, const Subset& subset, std::vector<Variable> variables, Mode mode)
    : mode_(mode), variables_(std::move(variables)) {
  const auto parameters = parameters_of(model, subset);
  require(variables_.size() == parameters.size(), "the parameter subset '{}' has {} tensors, got {} variables",
          subset.specification, parameters.size(), variables_.size());
  for (size_t i = 0; i < parameters.size(); i++) {
    const auto& [index, name, shape, offset] = subset.entries[i];
    require(variables_[i].rank() == shape.rank() + 1 && variables_[i].shape().trailing(shape.rank()) == shape,
            "the variable for {} must be [1 or N] followed by {}, got {}", name, shape.str(),
            variables_[i].shape().str());
    position_[parameters[i]] = i;
  }
}

Pass Pass::shared(const Module& model, const Subset& subset, Tape& tape, Mode mode) {
  const auto make = [&](const Tensor& value, const std::string& name) { return tape.leaf(value, name); };
  return {model, subset, leaves_of(model, subset, make), mode};
}

Pass Pass::per_sample(const Module& model, const Subset& subset, Tape& tape, int64_t samples) {
  const auto make = [&](const Tensor& value, const std::string& name) {
    return tape.per_sample_leaf(value, samples, name);
  };
  return {model, subset, leaves_of(model, subset, make), Mode::eval};
}

void Pass::draw_from(const Module& model, const Random& random, int64_t first_sample) {
  draws_ = Draws{random, first_sample};
  stream_.clear();
  uint64_t stream = 0;
  for (const auto& [name, module] : model.named_modules()) stream_[module] = stream++;
}

Pass::Draws Pass::draws(const Module& layer) const {
  const auto found = stream_.find(&layer);
  require(found != stream_.end(),
          "a layer that is random in train mode needs random numbers: call draw_from() of the pass with its model");
  return {draws_->random.stream(found->second), draws_->first_sample};
}

Variable Pass::parameter(const Parameter& parameter) const {
  const auto found = position_.find(&parameter);
  return found == position_.end() ? Variable(parameter.value.unsqueeze(0)) : variables_[found->second];
}

Variable Pass::block(const Module& module, const std::vector<Variable>& inputs,
                     std::function<Variable(const Pass&, const std::vector<Variable>&)> forward) const {
  if (!recompute_) return forward(*this, inputs);
  // The block's parameters become inputs too, after those given.
  std::vector<Variable> all = inputs;
  std::vector<size_t> places;
  for (const auto& [name, parameter] : module.named_parameters()) {
    const auto found = position_.find(parameter);
    if (found == position_.end() || !variables_[found->second].active()) continue;
    places.push_back(found->second);
    all.push_back(variables_[found->second]);
  }
  Pass inside = *this;
  inside.recompute_ = false;
  const auto done = std::make_shared<bool>(false);
  Variable y = recompute(
      [inside, places, forward = std::move(forward), given = inputs.size(), done](const std::vector<Variable>& x) {
        Pass pass = inside;
        pass.first_run_ = !*done;
        for (size_t i = 0; i < places.size(); i++) pass.variables_[places[i]] = x[given + i];
        Variable result =
            forward(pass, std::vector<Variable>(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(given)));
        return result;
      },
      all);
  *done = true;
  return y;
}

}  // namespace fastntk
