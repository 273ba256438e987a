// Deletion as a downdate: the normal equations of D follow as samples leave and arrive, without a new factorisation for
// each of them.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>

#include "engine/cholesky.h"

namespace fastntk {

/// Rows that need not be in memory together: hands them to `see`, piece by piece and in order, pieces [..., P] of
/// float32 or float64.
using RowPieces = std::function<void(const std::function<void(const Tensor&)>& see)>;

/// A + ρI with A = JᵀJ over the present samples, ρ fixed (the `sum` convention). For a weighted matrix Σ JᵢᵀΛᵢJᵢ the
/// rows are √Λᵢ·Jᵢ throughout.
///
/// Kept are A and the Cholesky factor of A + ρI as they were at the last factorisation, and the rows U [m, P] that have
/// left since. With K = (A + ρI)⁻¹ (Woodbury; Golub and Van Loan, Matrix Computations, 2.1.4)
///
///     (A − UᵀU + ρI)⁻¹ = K + K Uᵀ (I − U K Uᵀ)⁻¹ U K
///
/// It is factored anew when more rows have left than `crossover`, when an eigenvalue of I − U K Uᵀ falls below 1e-8,
/// and when rows arrive.
class DowndatedSystem {
 public:
  static constexpr double smallest_eigenvalue_allowed = 1e-8;
  static constexpr double largest_residual_allowed = 1e-10;

  /// `a` [P, P] without ρ; rows that may leave before the next factorisation, 0: factor at every request. Error unless
  /// ρ is positive.
  DowndatedSystem(SymmetricMatrix a, double ridge, int64_t crossover);
  /// As it was after the factorisation of another, of which matrix(), factor() and condition() were kept.
  DowndatedSystem(SymmetricMatrix a, Cholesky factor, double condition, int64_t crossover);

  /// Rows [..., P] (float32 or float64, leading axes flattened) that are among those of the present samples leave.
  void remove(const Tensor& rows);
  /// The same for `count` rows in pieces, which are in memory together only if there are no more than the crossover.
  void remove(int64_t count, const RowPieces& pieces);
  /// Just after a factorisation: the rows that left one after another until the system had these pending_rows() and
  /// solved_rows(), both [m, P] float64, leave again without a solve for them. The bits are the same.
  void resume(const Tensor& pending, const Tensor& solved);
  /// Takes the rows that left off A itself and factors, if there are any.
  void compact();
  /// Rows [..., P] arrive: A with them, and without those that left, is factored anew.
  void add(const Tensor& rows);
  /// The same in pieces.
  void add(const RowPieces& pieces);
  /// x with (A + ρI) x = b for the present A, b [P] float64; refined until the relative residual by the present A
  /// itself is at most 1e-14 or no longer halves. Error when it stays above 1e-10.
  Refinement solve(const Tensor& b) const;
  /// The same to rounding only, without refinement: symmetric, for preconditioning.
  Tensor apply_inverse(const Tensor& b) const;
  /// (A + ρI) x for the present A, x [P] float64.
  Tensor apply(const Tensor& x) const;

  int64_t size() const { return matrix_.size(); }
  double ridge() const { return ridge_; }
  /// A and L as they were at the last factorisation, with the estimate of the condition number.
  const SymmetricMatrix& matrix() const { return matrix_; }
  const Cholesky& factor() const { return *factor_; }
  double condition() const { return condition_; }
  /// U K for the rows U that left since, [m, P]; undefined if none did.
  const Tensor& solved_rows() const { return solved_; }
  /// Rows that left since the last factorisation.
  int64_t pending_rows() const { return removed_.defined() ? removed_.extent(0) : 0; }
  int64_t factorisations() const { return factorisations_; }
  /// The smallest eigenvalue of I − U K Uᵀ, in (0, 1]; 1 just after a factorisation.
  double smallest_eigenvalue() const { return smallest_eigenvalue_; }
  /// At least about the condition number of the present A + ρI: the estimate at the last factorisation over
  /// smallest_eigenvalue(), because rows that leave shrink the largest eigenvalue and the smallest at most by that
  /// factor.
  double condition_bound() const { return condition_ / smallest_eigenvalue_; }

 private:
  void absorb(double sign, const RowPieces& pieces);
  void factorise();
  bool follow_with(const Tensor& removed, const Tensor& solved);

  SymmetricMatrix matrix_;  // A at the last factorisation
  double ridge_;
  int64_t crossover_, factorisations_ = 0;
  std::optional<Cholesky> factor_;  // of matrix_ + ρI
  double condition_ = 1, smallest_eigenvalue_ = 1;
  Tensor removed_;                 // U [m, P] float64, undefined if m = 0
  Tensor solved_;                  // U K [m, P]
  std::optional<Cholesky> schur_;  // of I − U K Uᵀ
};

}  // namespace fastntk
