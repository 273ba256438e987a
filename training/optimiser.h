// First-order optimisers on a list of parameters.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

struct OptimiserConfig {
  std::string kind = "sgd";  ///< sgd, adam (decay added to the gradient) or adamw (decoupled decay)
  double momentum = 0.9;     ///< sgd
  bool nesterov = false;     ///< sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< adam, adamw
  double weight_decay = 0;  ///< factor of θ itself; see TrainConfig::l2 for decay towards the initial point
};

/// Updates as in torch.optim: sgd  v ← μv + g, θ ← θ − lr (v, or g + μv with Nesterov); adam with bias correction.
class Optimiser {
 public:
  /// `parameters` are updated in place by step(), in the memory of their device, where the state is too.
  Optimiser(const OptimiserConfig& config, std::vector<Tensor> parameters);
  /// One step with these gradients (one per parameter, same shape, type and device).
  void step(const std::vector<Tensor>& gradients, double learning_rate);

  /// All there is to continue from: one or two tensors per parameter and the number of steps taken.
  const std::vector<Tensor>& state() const { return state_; }
  int64_t steps() const { return steps_; }
  void restore(const std::vector<Tensor>& state, int64_t steps);

 private:
  OptimiserConfig config_;
  std::vector<Tensor> parameters_, state_;
  int64_t steps_ = 0;
};

}  // namespace fastntk
