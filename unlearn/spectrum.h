// What the eigenvalues of a kernel say (docs/ntk.md has the formulas).
#pragma once
#include <cstdint>
#include <vector>

#include "engine/cholesky.h"

namespace fastntk {

/// Eigenvalues in descending order.
struct Spectrum {
  std::vector<double> values;     ///< those that were computed; of a primal plan without the zeros that follow
  int64_t size = 0;               ///< of Θ: how many it has
  bool complete = false;          ///< all are there, or zero
  std::vector<double> residuals;  ///< ‖Θu − λu‖ of each, of Lanczos
  int steps = 0;                  ///< of Lanczos
};

/// All eigenvalues of a matrix; `size` is that of Θ, of which the matrix may be the smaller side JᵀJ.
Spectrum full_spectrum(const SymmetricMatrix& matrix, int64_t size);

/// The `count` largest eigenvalues of a symmetric operator on float64 [n], by Lanczos's method with full
/// reorthogonalisation (Golub and Van Loan, Matrix Computations, 10.3), until each residual is at most
/// `tolerance` · λ₁. Error after `max_steps`. The start is drawn from `seed`. Repeated eigenvalues are found once.
Spectrum largest_eigenvalues(const LinearOperator& apply, int64_t n, int64_t count, double tolerance = 1e-8,
                             int max_steps = 1000, uint64_t seed = 0);

/// tr(Θ(Θ+ρI)⁻¹) = Σ λ/(λ+ρ), of a complete spectrum.
double effective_dimension(const Spectrum& spectrum, double ridge);
/// (λ₁ + ρ)/(λ_min + ρ), of a complete spectrum; infinite when ρ = 0 and Θ is singular.
double condition_number(const Spectrum& spectrum, double ridge);
/// ⟨Θ, yyᵀ⟩_F / (‖Θ‖_F ‖yyᵀ‖_F) = yᵀΘy / (‖Θ‖_F yᵀy) (Cristianini, Shawe-Taylor, Elisseeff and Kandola 2001).
double kernel_target_alignment(double target_product, double frobenius_norm, double target_square);
/// ‖A‖_F; of Θ and of JᵀJ it is the same.
double frobenius_norm(const SymmetricMatrix& matrix);

}  // namespace fastntk
