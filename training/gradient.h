// The objective that fine-tuning minimises, and its gradient.
#pragma once
#include <optional>
#include <vector>

#include "datasets/samples.h"
#include "models/pass.h"
#include "training/loss.h"

namespace fastntk {

/// A loss that overflows: an Error that names the op, or what it is.
enum class NonFinite : uint8_t { refused, kept };

/// Σ of per-sample losses over a batch and its gradient in the parameters of a subset.
struct BatchGradient {
  double loss = 0;               ///< Σ ℓ
  std::vector<Tensor> gradient;  ///< one per entry of the subset, in the parameter's shape, type and device
};

/// Here and below, inputs are in any memory, and go to the model's device tile by tile.
///
/// The batch goes through in fixed tiles of samples, each with a tape of its own on one thread, and the tiles'
/// gradients are added in order in float64: the bits do not depend on the number of threads. In train mode it goes
/// through whole unless the model separates_samples(): batch norm couples them. A loss that is not finite is an error
/// which names the op that made the first NaN, unless it is to be `kept`. Layers that are random in train mode
/// (dropout) draw from `random`. With `recompute`, blocks of the model run again instead of keeping what they computed:
/// the same bits from less memory.
BatchGradient batch_gradient(const Module& model, const Subset& subset, Mode mode, const Tensor& inputs,
                             const Tensor& labels, const Loss& loss, double label_smoothing = 0,
                             const std::optional<Random>& random = {}, bool recompute = false,
                             NonFinite non_finite = NonFinite::refused);

/// Tensors [n₁, …], [n₂, …], … one after the other: [n₁ + n₂ + …, …].
Tensor stack_rows(const std::vector<Tensor>& parts);

/// Logits [n, C] of inputs [n, H, W, channels] in eval mode, tile by tile on all threads; in the inputs' memory.
Tensor predict(const Module& model, const Tensor& inputs);

/// Σ ℓ + ½ρ‖θ − θ0‖² over a set in eval mode, and the norm of its gradient; not finite where they overflow.
struct Objective {
  double loss = 0, penalty = 0, gradient_norm = 0;
  double value() const { return loss + penalty; }
};
Objective objective(const Module& model, const Subset& subset, const Samples& samples, const Loss& loss, double rho,
                    const Tensor& theta0);

}  // namespace fastntk
