// Products with the Jacobian that keep no row of it, and conjugate gradients on JᵀJ + ρI with a Nyström preconditioner.
#pragma once
#include <cstdint>

#include "engine/cholesky.h"
#include "models/pass.h"

namespace fastntk {

/// J of a model's logits in a subset, at the parameters θ*, over inputs [n, …]. Every product records each batch again.
/// The model's parameters are set to θ* during a product and set back after it. Results are float64, summed over
/// batches in their order; J itself has the model's type. Model and subset must outlive it.
class JacobianOperator {
 public:
  JacobianOperator(Module& model, const Subset& subset, Tensor inputs, Tensor theta_star);
  int64_t samples() const { return inputs_.extent(0); }
  int64_t classes() const { return classes_; }
  int64_t parameters() const { return subset_.size(); }
  DType dtype() const { return inputs_.dtype(); }
  const Tensor& theta_star() const { return theta_star_; }

  /// J_S v, [|S|, C], or [|S|, C, R] for v [P, R]. S are positions.
  Tensor times(const std::vector<int64_t>& positions, const Tensor& v) const;
  /// J_Sᵀ u, [P], for u of |S|·C numbers.
  Tensor transposed_times(const std::vector<int64_t>& positions, const Tensor& u) const;
  /// Σ_S JᵢᵀΛᵢJᵢ v, of v's shape [P] or [P, R]: one JVP and one VJP of every batch. `weights` Λ [|S|, C, C] float64, or
  /// undefined for the identity.
  Tensor gram_times(const std::vector<int64_t>& positions, const Tensor& v, const Tensor& weights = {}) const;

 private:
  enum class Product : uint8_t { forward, backward, both };
  Tensor apply(Product product, const std::vector<int64_t>& positions, const Tensor& x, int64_t stack,
               const Tensor& weights) const;

  Module& model_;
  const Subset& subset_;
  Tensor inputs_, theta_star_;
  int64_t classes_ = 0;
};

/// Bytes that all threads take together while they record batches of inputs [n, …] and multiply `vectors` vectors by
/// JᵀJ at the model's parameters, beside the vectors: measured on one batch.
size_t measured_product_bytes(const Module& model, const Subset& subset, const Tensor& inputs, int64_t vectors);

/// An approximation U Λ Uᵀ of rank r of a positive semi-definite A [n, n], for preconditioning A + ρI (Frangella, Tropp
/// and Udell, "Randomized Nyström preconditioning", 2021, Algorithms 2.1 and 5.1).
class NystromPreconditioner {
 public:
  /// From one product of A with `rank` random vectors drawn from `seed`.
  NystromPreconditioner(const LinearOperator& a, int64_t n, int64_t rank, double ridge, uint64_t seed = 0);
  /// P⁻¹x = (λ_r + ρ) U(Λ + ρI)⁻¹Uᵀx + (x − UUᵀx), for x [n] or [n, R].
  Tensor apply(const Tensor& x) const;
  const std::vector<double>& eigenvalues() const { return eigenvalues_; }

 private:
  Tensor basis_;  // U [r, n]
  std::vector<double> eigenvalues_;
  double ridge_;
};

struct ConjugateGradients {
  Tensor x;
  double relative_residual = 0;  ///< ‖b − (A+ρI)x‖ / ‖b‖ by a product made in the end; the largest over columns
  int steps = 0;
};

/// Solves (A + ρI) x = b for b [n] or [n, R], all columns by one product in a step, until each relative residual is at
/// most `target`. A column that is done stays as it is. Error after `max_steps`, naming the residual reached.
ConjugateGradients conjugate_gradients(const LinearOperator& a, double ridge, const Tensor& b,
                                       const NystromPreconditioner* preconditioner, double target = 1e-10,
                                       int max_steps = 2000);

}  // namespace fastntk
