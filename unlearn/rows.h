// What the linearised model knows of a set of samples, and the products with its Jacobian that every solver is made of.
// All sums run in float64 and in a fixed order.
#pragma once
#include <memory>
#include <vector>

#include "engine/cholesky.h"
#include "engine/gram.h"
#include "training/loss.h"
#include "unlearn/matrix_free.h"

namespace fastntk {

/// The model linearised at θ*: f_lin(x; θ) = f(x; θ*) + J(x)(θ − θ*) on n samples.
struct LinearisedSet {
  Tensor rows;    ///< J [n, C, P], float32 or float64, in the memory of any device: products with J are made there
  Tensor logits;  ///< f(x; θ*) [n, C], on the host
  Tensor labels;  ///< int64 [n], on the host
  /// Products with J at θ* in the place of rows, which are undefined then: all that matrix-free systems need.
  std::shared_ptr<const JacobianOperator> products = {};
  int64_t size() const { return labels.extent(0); }
  int64_t classes() const { return logits.extent(1); }
  int64_t parameters() const { return products ? products->parameters() : rows.extent(2); }
};

/// Some samples of a set, by position, in ascending order.
using Positions = std::vector<int64_t>;
/// 0 … n−1
Positions all_positions(int64_t n);
/// Those of 0 … n−1 that are not in `positions`.
Positions complement(const Positions& positions, int64_t n);

/// J_S v, [|S|, C] for v [P].
Tensor rows_times(const LinearisedSet& set, const Positions& positions, const Tensor& v);
/// J_Sᵀ u, [P] for u [|S|, C].
Tensor transposed_rows_times(const LinearisedSet& set, const Positions& positions, const Tensor& u);

/// −∂ℓ/∂f at logits [n, C].
Tensor residuals_at(const Loss& loss, const Tensor& logits, const std::vector<int64_t>& labels);
/// One-hot labels of S less `predicted`, numbers [n, C] of the whole set: [|S|, C].
Tensor residuals_of(const LinearisedSet& set, const Positions& positions, const std::vector<double>& predicted);

/// Σᵢ Jᵢᵀ Λᵢ Jᵢ over S with Λᵢ = Sᵢ Sᵢᵀ from the loss at the logits `f` [|S|, C]; plain Σ JᵢᵀJᵢ where the loss is
/// quadratic.
SymmetricMatrix weighted_gram(const LinearisedSet& set, const Positions& positions, const Loss& loss, const Tensor& f);

enum class Representation : uint8_t { automatic, primal, dual, matrix_free };
/// Of "auto", "primal", "dual" and "matrix-free"; UsageError for any other text.
Representation representation_of(const std::string& name);

/// How one regularised system was solved.
struct SolveReport {
  std::string name;            ///< e.g. "D_r"
  std::string representation;  ///< "primal", "dual" or "matrix-free"
  int64_t unknowns = 0;
  double ridge = 0;              ///< ρ
  double relative_residual = 0;  ///< of the system as posed, after refinement
  int refinement_steps = 0;      ///< or steps of conjugate gradients
  double condition_estimate = 0;
};

/// (J_SᵀJ_S + ρI)⁻¹ in the smaller of its two forms:
///   primal  P unknowns, Cholesky of J_SᵀJ_S + ρI;
///   dual    |S|·C unknowns, (J_SᵀJ_S + ρI)⁻¹J_Sᵀ = J_Sᵀ(J_S J_Sᵀ + ρI)⁻¹;
/// or matrix-free, where the set has products in the place of rows: P unknowns, conjugate gradients.
class RidgeSystem {
 public:
  RidgeSystem(const LinearisedSet& set, Positions positions, double ridge, Representation representation,
              std::string name);
  /// From a primal Gram matrix that is already there (weighted, or a difference of two).
  RidgeSystem(SymmetricMatrix gram, double ridge, std::string name);
  /// (J_SᵀJ_S + ρI)⁻¹ J_Sᵀ r for residuals r [|S|, C]: [P].
  Tensor solve_rows(const Tensor& residuals);
  /// (A + ρI)⁻¹ b, b [P]; primal only.
  Tensor solve(const Tensor& b);
  const SolveReport& report() const { return report_; }

 private:
  Tensor refined(const Tensor& b);
  const LinearisedSet* set_ = nullptr;
  Positions positions_;
  std::unique_ptr<SymmetricMatrix> matrix_;
  std::unique_ptr<Cholesky> factor_;
  std::unique_ptr<NystromPreconditioner> preconditioner_;
  SolveReport report_;
};

}  // namespace fastntk
