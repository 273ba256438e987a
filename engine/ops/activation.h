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
/// 2/√π ∫₀ˣ exp(−t²) dt
Variable erf(const Variable& x);

}  // namespace fastntk
