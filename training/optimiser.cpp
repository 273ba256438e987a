#include "training/optimiser.h"

#include "engine/backend.h"

namespace fastntk {
Optimiser::Optimiser(const OptimiserConfig& config, std::vector<Tensor> parameters)
    : config_(config), parameters_(std::move(parameters)) {
  require_usage(config.kind == "sgd" || config.kind == "adam" || config.kind == "adamw",
                "an optimiser is sgd, adam or adamw, got '{}'", config.kind);
  require_usage(config.momentum >= 0 && config.momentum < 1, "momentum must be in [0, 1), got {}", config.momentum);
  require_usage(!config.nesterov || config.momentum > 0, "Nesterov's method needs momentum");
  require_usage(config.weight_decay >= 0, "weight decay must not be negative, got {}", config.weight_decay);
  for (Tensor& p : parameters_) {
    require(p.is_contiguous(), "an optimiser needs contiguous parameters");
    for (int i = 0; i < (config.kind == "sgd" ? 1 : 2); i++)
      state_.push_back(Tensor::zeros(p.shape(), p.dtype(), p.device()));
  }
}

void Optimiser::step(const std::vector<Tensor>& gradients, double learning_rate) {
  require(gradients.size() == parameters_.size(), "{} gradients for {} parameters", gradients.size(),
          parameters_.size());
  steps_++;
  for (size_t k = 0; k < parameters_.size(); k++) {
    Tensor& p = parameters_[k];
    const Tensor gradient = gradients[k].contiguous();
    require(gradient.shape() == p.shape() && gradient.dtype() == p.dtype(), "a gradient {} for a parameter {}",
            gradient.describe(), p.describe());
    const Backend& device = backend_of(p);
    if (config_.kind == "sgd")
      device.step(Backend::SgdStep{.gradient = gradient,
                                   .theta = p,
                                   .velocity = state_[k],
                                   .rate = learning_rate,
                                   .momentum = config_.momentum,
                                   .decay = config_.weight_decay,
                                   .nesterov = config_.nesterov,
                                   .first = steps_ == 1});
    else
      device.step(Backend::AdamStep{.gradient = gradient,
                                    .theta = p,
                                    .mean = state_[2 * k],
                                    .square = state_[2 * k + 1],
                                    .rate = learning_rate,
                                    .beta1 = config_.beta1,
                                    .beta2 = config_.beta2,
                                    .epsilon = config_.epsilon,
                                    .decay = config_.weight_decay,
                                    .decoupled = config_.kind == "adamw",
                                    .steps = steps_});
  }
}

void Optimiser::restore(const std::vector<Tensor>& state, int64_t steps) {
  require(state.size() == state_.size(), "an optimiser's state of {} tensors, expected {}", state.size(),
          state_.size());
  for (size_t i = 0; i < state.size(); i++) {
    require(state[i].shape() == state_[i].shape() && state[i].dtype() == state_[i].dtype(),
            "the optimiser's state {} is {}, expected {}", i, state[i].describe(), state_[i].describe());
    state_[i].copy_from(state[i].to(state_[i].device()));
  }
  steps_ = steps;
}

}  // namespace fastntk
