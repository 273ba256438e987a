#include "training/optimiser.h"

#include <cmath>

#include "engine/parallel.h"

namespace fastntk {
namespace {

constexpr int64_t grain = 1 << 15;

template <class T>
void sgd(const OptimiserConfig& c, int64_t n, T* theta, const T* gradient, T* velocity, T rate, bool first) {
  const T decay = static_cast<T>(c.weight_decay), mu = static_cast<T>(c.momentum);
  for (int64_t i = 0; i < n; i++) {
    const T g = gradient[i] + decay * theta[i];
    velocity[i] = first ? g : mu * velocity[i] + g;
    theta[i] -= rate * (c.nesterov ? g + mu * velocity[i] : velocity[i]);
  }
}

template <class T>
void adam(const OptimiserConfig& c, int64_t n, T* theta, const T* gradient, T* mean, T* square, double rate,
          int64_t steps) {
  const bool decoupled = c.kind == "adamw";
  const T decay = static_cast<T>(c.weight_decay), b1 = static_cast<T>(c.beta1), b2 = static_cast<T>(c.beta2);
  const double correction1 = 1 - std::pow(c.beta1, static_cast<double>(steps));
  const double correction2 = 1 - std::pow(c.beta2, static_cast<double>(steps));
  const T step = static_cast<T>(rate / correction1), root = static_cast<T>(1 / std::sqrt(correction2));
  const T epsilon = static_cast<T>(c.epsilon), shrink = static_cast<T>(1 - rate * c.weight_decay);
  for (int64_t i = 0; i < n; i++) {
    const T g = decoupled ? gradient[i] : gradient[i] + decay * theta[i];
    mean[i] = b1 * mean[i] + (1 - b1) * g;
    square[i] = b2 * square[i] + (1 - b2) * g * g;
    if (decoupled) theta[i] *= shrink;
    theta[i] -= step * mean[i] / (std::sqrt(square[i]) * root + epsilon);
  }
}

}  // namespace

Optimiser::Optimiser(const OptimiserConfig& config, std::vector<Tensor> parameters)
    : config_(config), parameters_(std::move(parameters)) {
  require_usage(config.kind == "sgd" || config.kind == "adam" || config.kind == "adamw",
                "an optimiser is sgd, adam or adamw, got '{}'", config.kind);
  require_usage(config.momentum >= 0 && config.momentum < 1, "momentum must be in [0, 1), got {}", config.momentum);
  require_usage(!config.nesterov || config.momentum > 0, "Nesterov's method needs momentum");
  require_usage(config.weight_decay >= 0, "weight decay must not be negative, got {}", config.weight_decay);
  for (Tensor& p : parameters_) {
    require(p.is_contiguous(), "an optimiser needs contiguous parameters");
    for (int i = 0; i < (config.kind == "sgd" ? 1 : 2); i++) state_.push_back(Tensor::zeros(p.shape(), p.dtype()));
  }
}

void Optimiser::step(const std::vector<Tensor>& gradients, double learning_rate) {
  require(gradients.size() == parameters_.size(), "{} gradients for {} parameters", gradients.size(),
          parameters_.size());
  steps_++;
  for (size_t k = 0; k < parameters_.size(); k++) {
    Tensor& p = parameters_[k];
    const Tensor gradient = gradients[k].contiguous();
    require(gradient.shape() == p.shape(), "a gradient {} for a parameter {}", gradient.describe(), p.describe());
    for_floating(p.dtype(), "an optimiser", [&](auto zero) {
      using T = decltype(zero);
      T* const theta = p.mutable_data<T>();
      const T* const g = gradient.data<T>();
      const bool is_sgd = config_.kind == "sgd";
      T* const first = state_[is_sgd ? k : 2 * k].mutable_data<T>();
      T* const second = is_sgd ? nullptr : state_[2 * k + 1].mutable_data<T>();
      parallel_ranges(p.elements(), grain, [&](int64_t from, int64_t to) {
        if (is_sgd)
          sgd(config_, to - from, theta + from, g + from, first + from, static_cast<T>(learning_rate), steps_ == 1);
        else
          adam(config_, to - from, theta + from, g + from, first + from, second + from, learning_rate, steps_);
      });
    });
  }
}

void Optimiser::restore(const std::vector<Tensor>& state, int64_t steps) {
  require(state.size() == state_.size(), "an optimiser's state of {} tensors, expected {}", state.size(),
          state_.size());
  for (size_t i = 0; i < state.size(); i++) {
    require(state[i].shape() == state_[i].shape() && state[i].dtype() == state_[i].dtype(),
            "the optimiser's state {} is {}, expected {}", i, state[i].describe(), state_[i].describe());
    state_[i].copy_from(state[i]);
  }
  steps_ = steps;
}

}  // namespace fastntk
