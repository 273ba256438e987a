// Cholesky factorisation of A + ρI and what is done with it: solves, iterative refinement, a condition estimate.
#pragma once
#include <cstdint>
#include <functional>

#include "engine/symmetric.h"

namespace fastntk {

/// A + ρI = L Lᵀ, in the tiles of A: the same bits for any number of threads. Nothing is ever added to the diagonal but
/// ρ.
class Cholesky {
 public:
  /// Factors in place: move A in, or pass `a.clone()` to keep it. Error naming the pivot and ρ if A + ρI is not
  /// positive definite; error if A has a NaN or infinity, or ρ is negative.
  /// On another device than the CPU the factor is made, stays and solves there: P² numbers of 8 bytes.
  explicit Cholesky(SymmetricMatrix a, double ridge = 0, Device device = Device::cpu);
  /// From what factor(), ridge() and one_norm() of another gave, kept in a file meanwhile; no factorisation.
  static Cholesky from_factor(SymmetricMatrix factor, double ridge, double one_norm) {
    return {std::move(factor), ridge, one_norm};
  }
  /// L, in the lower triangles of the tiles; Error for a factor on another device.
  const SymmetricMatrix& factor() const;
  /// ‖A + ρI‖₁
  double one_norm() const { return norm_; }
  int64_t size() const { return size_; }
  double ridge() const { return ridge_; }
  /// (A + ρI)⁻¹ b for b [n] or [n, R], float64, on the host. By a factor on the host a column's bits do not depend on
  /// the other columns.
  Tensor solve(const Tensor& b) const;
  /// Estimate (from below, seldom by more than a factor 3) of κ₁ = ‖A + ρI‖₁ ‖(A + ρI)⁻¹‖₁; 1 for size 0.
  double condition_estimate() const;

 private:
  Cholesky(SymmetricMatrix factor, double ridge, double norm)
      : factor_(std::move(factor)), size_(factor_.size()), ridge_(ridge), norm_(norm) {}
  void factorise_diagonal(int64_t k);
  void factorise_on(Device device);
  Tensor solve_on_device(const Tensor& b) const;
  void require_positive(int64_t failed) const;

  SymmetricMatrix factor_;  // L; the upper triangles of diagonal tiles still hold A. Empty if it is on a device:
  Tensor device_factor_;    // [n, n], the upper triangle meaningless
  int64_t size_;
  double ridge_, norm_;
};

/// x → (A + ρI) x for x [n] or [n, R], float64; need not come from a matrix in memory.
using LinearOperator = std::function<Tensor(const Tensor&)>;

struct Refinement {
  Tensor x;
  double relative_residual = 0;  ///< ‖b − (A+ρI)x‖₂ / ‖b‖₂ of this x, by `apply`; the largest over columns
  int steps = 0;                 ///< corrections in x
};

/// Solves by `inverse`, b → about (A + ρI)⁻¹ b, then corrects x by solves for the residual that `apply` shows, until
/// the relative residual is at most `target`, a step no longer halves it (rounding), or `max_steps` are done. The x
/// with the smallest residual is returned.
Refinement refine(const LinearOperator& inverse, const LinearOperator& apply, const Tensor& b, double target = 1e-14,
                  int max_steps = 10);
/// The same by a factor.
Refinement refine(const Cholesky& factor, const LinearOperator& apply, const Tensor& b, double target = 1e-14,
                  int max_steps = 10);

}  // namespace fastntk
