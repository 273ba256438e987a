#include "unlearn/downdate.h"

#include <cmath>

#include "engine/gram.h"
#include "unlearn/metrics.h"

namespace fastntk {
namespace {

// [..., P] as contiguous float64 [m, P].
Tensor as_matrix(const Tensor& rows, int64_t columns) {
  require(rows.defined() && rows.rank() >= 1 && rows.extent(-1) == columns && is_floating(rows.dtype()),
          "rows [..., {}] of float32 or float64 are needed, got {}", columns,
          rows.defined() ? rows.describe() : "nothing");
  return rows.to(DType::float64).contiguous().reshape({rows.elements() / columns, columns});
}

Tensor below(const Tensor& upper, const Tensor& lower) {
  if (!upper.defined()) return lower;
  const int64_t m = upper.extent(0), more = lower.extent(0);
  Tensor out({m + more, upper.extent(1)}, DType::float64);
  out.slice(0, 0, m).copy_from(upper);
  out.slice(0, m, m + more).copy_from(lower);
  return out;
}

// M x, [m] for M [m, P].
Tensor times(const Tensor& m, const Tensor& x) {
  Tensor out = Tensor::zeros({m.extent(0)}, DType::float64);
  double* const y = out.mutable_data<double>();
  const double *row = m.data<double>(), *const v = x.data<double>();
  for (int64_t i = 0; i < m.extent(0); i++, row += m.extent(1))
    for (int64_t p = 0; p < m.extent(1); p++) y[i] += row[p] * v[p];
  return out;
}

// y ← y + factor · Mᵀu.
void add_transposed(Tensor& y, double factor, const Tensor& m, const Tensor& u) {
  double* const to = y.mutable_data<double>();
  const double* row = m.data<double>();
  for (int64_t i = 0; i < m.extent(0); i++, row += m.extent(1)) {
    const double weight = factor * u.data<double>()[i];
    for (int64_t p = 0; p < m.extent(1); p++) to[p] += weight * row[p];
  }
}

}  // namespace

DowndatedSystem::DowndatedSystem(SymmetricMatrix a, double ridge, int64_t crossover)
    : matrix_(std::move(a)), ridge_(ridge), crossover_(crossover) {
  require(ridge > 0 && std::isfinite(ridge), "the ridge ρ must be positive and finite, got {}", ridge);
  require(crossover >= 0, "the crossover is a number of rows, got {}", crossover);
  factorise();
}

DowndatedSystem::DowndatedSystem(SymmetricMatrix a, Cholesky factor, double condition, int64_t crossover)
    : matrix_(std::move(a)),
      ridge_(factor.ridge()),
      crossover_(crossover),
      factor_(std::move(factor)),
      condition_(condition) {
  require(factor_->size() == size(), "a factor of size {} for a matrix of size {}", factor_->size(), size());
}

void DowndatedSystem::factorise() {
  removed_ = solved_ = {};
  schur_.reset();
  factor_.reset();  // before the next one, so that there are never two
  factor_.emplace(matrix_.clone(), ridge_);
  condition_ = factor_->condition_estimate();
  smallest_eigenvalue_ = 1;
  factorisations_++;
}

// In the memory of A: a second matrix beside A and L would be more than a state may take.
void DowndatedSystem::absorb(double sign, const RowPieces& pieces) {
  GramAccumulator gram(std::move(matrix_), sign);
  pieces([&](const Tensor& rows) { gram.add(rows); });
  matrix_ = std::move(gram).finish().matrix;
}

void DowndatedSystem::remove(const Tensor& rows) {
  remove(as_matrix(rows, size()).extent(0), [&](const auto& see) { see(rows); });
}

void DowndatedSystem::remove(int64_t count, const RowPieces& pieces) {
  if (count == 0) return;
  const auto factor_without = [&](const RowPieces& leaving) {
    absorb(-1, [&](const auto& see) {
      if (removed_.defined()) see(removed_);
      leaving(see);
    });
    factorise();
  };
  if (pending_rows() + count > crossover_) return factor_without(pieces);
  Tensor leaving;
  pieces([&](const Tensor& rows) { leaving = below(leaving, as_matrix(rows, size())); });
  const Tensor solved = factor_->solve(leaving.transpose(0, 1).contiguous()).transpose(0, 1).contiguous();
  if (!follow_with(below(removed_, leaving), below(solved_, solved)))
    factor_without([&](const auto& see) { see(leaving); });
}

// Woodbury with these rows; false, and nothing done, where I − U K Uᵀ is too close to singular.
bool DowndatedSystem::follow_with(const Tensor& removed, const Tensor& solved) {
  const int64_t m = removed.extent(0);
  Tensor schur = dual_gram(removed, solved).contiguous().clone();
  double* const s = schur.mutable_data<double>();
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) s[i * m + j] = (i == j ? 1 : 0) - s[i * m + j];
  SymmetricMatrix small = SymmetricMatrix::from(schur);
  const double smallest = small.eigenvalues().data<double>()[0];
  if (smallest < smallest_eigenvalue_allowed) return false;
  schur_.emplace(std::move(small));
  removed_ = removed, solved_ = solved, smallest_eigenvalue_ = smallest;
  return true;
}

void DowndatedSystem::resume(const Tensor& pending, const Tensor& solved) {
  require(!removed_.defined() && pending.shape() == solved.shape(),
          "rows {} and their solutions {} to go on from, {} rows are there", pending.describe(), solved.describe(),
          pending_rows());
  require(follow_with(as_matrix(pending, size()), as_matrix(solved, size())),
          "the rows to go on from leave a system that is singular to rounding");
}

void DowndatedSystem::compact() {
  if (!removed_.defined()) return;
  absorb(-1, [&](const auto& see) { see(removed_); });
  factorise();
}

void DowndatedSystem::add(const Tensor& rows) {
  if (const Tensor arriving = as_matrix(rows, size()); arriving.extent(0) > 0)
    add([&](const auto& see) { see(arriving); });
}

void DowndatedSystem::add(const RowPieces& pieces) {
  if (removed_.defined()) absorb(-1, [&](const auto& see) { see(removed_); });
  absorb(1, pieces);
  factorise();
}

Tensor DowndatedSystem::apply(const Tensor& x) const {
  Tensor y = combine(matrix_.multiply(x), ridge_, x);
  if (removed_.defined()) add_transposed(y, -1, removed_, times(removed_, x));
  return y;
}

Tensor DowndatedSystem::apply_inverse(const Tensor& b) const {
  Tensor x = factor_->solve(b);
  if (removed_.defined()) add_transposed(x, 1, solved_, schur_->solve(times(solved_, b)));
  return x;
}

Refinement DowndatedSystem::solve(const Tensor& b) const {
  require(b.shape() == Shape{size()} && b.dtype() == DType::float64, "b must be float64 [{}], got {}", size(),
          b.describe());
  Refinement best =
      refine([&](const Tensor& x) { return apply_inverse(x); }, [&](const Tensor& x) { return apply(x); }, b);
  require(best.relative_residual <= largest_residual_allowed,
          "the system of {} unknowns was solved to a relative residual of {:.2e} only, {:.0e} is needed (condition at "
          "most about {:.1e}); a larger ρ is needed",
          size(), best.relative_residual, largest_residual_allowed, condition_bound());
  return best;
}

}  // namespace fastntk
