// Activation functions, element by element. x may have any shape.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// How GELU is computed, by torch's names: `none` is x Φ(x) with the normal distribution Φ, `tanh` the approximation
/// ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))). Hendrycks and Gimpel, "Gaussian error linear units", 2016.
enum class GeluApproximation : uint8_t { none, tanh };
Variable gelu(const Variable& x, GeluApproximation approximate = GeluApproximation::none);
/// The derivative of gelu at x.
Variable gelu_derivative(const Variable& x, GeluApproximation approximate = GeluApproximation::none);

Variable tanh(const Variable& x);
/// 1 / (1 + exp(−x))
Variable sigmoid(const Variable& x);
/// x sigmoid(x)
Variable silu(const Variable& x);
/// log(1 + exp(β x)) / β, and x where β x > threshold, as in torch; β > 0.
Variable softplus(const Variable& x, double beta = 1, double threshold = 20);
/// 2/√π ∫₀ˣ exp(−t²) dt
Variable erf(const Variable& x);

}  // namespace fastntk
