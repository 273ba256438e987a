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

void DowndatedSystem::factorise() {
  removed_ = solved_ = {};
  schur_.reset();
  factor_.reset();  // before the next one, so that there are never two
  factor_.emplace(matrix_.clone(), ridge_);
  condition_ = factor_->condition_estimate();
  smallest_eigenvalue_ = 1;
  factorisations_++;
}

void DowndatedSystem::absorb(double sign, const Tensor& rows) {
  GramAccumulator gram(size(), 0);
  gram.add(rows);
  matrix_.add_scaled(sign, std::move(gram).finish().matrix);
}

void DowndatedSystem::remove(const Tensor& rows) {
  const Tensor leaving = as_matrix(rows, size());
  if (leaving.extent(0) == 0) return;
  const Tensor all = below(removed_, leaving);
  const int64_t m = all.extent(0);
  const auto factor_without = [&] {
    absorb(-1, all);
    factorise();
  };
  if (m > crossover_) return factor_without();
  const Tensor solved =
      below(solved_, factor_->solve(leaving.transpose(0, 1).contiguous()).transpose(0, 1).contiguous());
  Tensor schur = dual_gram(all, solved).contiguous().clone();
  double* const s = schur.mutable_data<double>();
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < m; j++) s[i * m + j] = (i == j ? 1 : 0) - s[i * m + j];
  SymmetricMatrix small = SymmetricMatrix::from(schur);
  const double smallest = small.eigenvalues().data<double>()[0];
  if (smallest < smallest_eigenvalue_allowed) return factor_without();
  schur_.emplace(std::move(small));
  removed_ = all, solved_ = solved, smallest_eigenvalue_ = smallest;
}

void DowndatedSystem::add(const Tensor& rows) {
  const Tensor arriving = as_matrix(rows, size());
  if (arriving.extent(0) == 0) return;
  if (removed_.defined()) absorb(-1, removed_);
  absorb(1, arriving);
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
