#include "engine/cholesky.h"

#include <algorithm>
#include <cmath>

#include "engine/backend.h"
#include "engine/blas.h"
#include "engine/device.h"
#include "engine/parallel.h"

namespace fastntk {

Cholesky::Cholesky(SymmetricMatrix a, double ridge, Device device)
    : factor_(std::move(a)), size_(factor_.size()), ridge_(ridge), norm_(0) {
  require(std::isfinite(ridge) && ridge >= 0, "Cholesky needs a ridge that is not negative, got {}", ridge);
  factor_.add_to_diagonal(ridge);
  norm_ = factor_.one_norm();
  const auto [size, count, extent] = factor_.tiling();
  if (count == 0) return;
  if (device != Device::cpu) {
    factorise_on(device);
    return;
  }
  // Padding becomes a block of the unit matrix, which changes nothing in the rest.
  for (int64_t i = size - (count - 1) * extent; i < extent; i++)
    factor_.tile(count - 1, count - 1)[i * (extent + 1)] = 1;

  // Right-looking: column k of L, then its products are taken off everything right of it. The next diagonal tile comes
  // first, and is factorised while the other threads still work on the rest.
  factorise_diagonal(0);
  for (int64_t k = 0; k + 1 < count; k++) {
    const int64_t below = count - k - 1;
    parallel_for(below, [&](int64_t item) {
      blas::trsm('R', 'L', 'T', 'N', extent, extent, 1.0, factor_.tile(k, k), extent, factor_.tile(k + 1 + item, k),
                 extent);
    });
    parallel_for(lower_tiles(below), [&](int64_t item) {
      const LowerTile at(item);
      const int64_t i = k + 1 + at.row, j = k + 1 + at.column;
      if (i == j)
        blas::syrk('L', 'N', extent, extent, -1.0, factor_.tile(i, k), extent, 1.0, factor_.tile(i, i), extent);
      else
        blas::gemm('N', 'T', extent, extent, extent, -1.0, factor_.tile(i, k), extent, factor_.tile(j, k), extent, 1.0,
                   factor_.tile(i, j), extent);
      if (item == 0) factorise_diagonal(k + 1);
    });
  }
}

void Cholesky::factorise_diagonal(int64_t k) {
  const int extent = factor_.tiling().extent;
  const int failed = blas::potrf('L', extent, factor_.tile(k, k), extent);
  require_positive(failed == 0 ? 0 : k * extent + failed);
}

void Cholesky::require_positive(int64_t failed) const {
  require(failed == 0,
          "A + ρI [{}, {}] with ρ = {} is not positive definite: pivot {} is not positive; a larger ρ is needed",
          size(), size(), ridge_, failed);
}

void Cholesky::factorise_on(Device device) {
  device_factor_ = factor_.dense().to(device);
  factor_ = SymmetricMatrix(0);
  require_positive(backend(device).cholesky(device_factor_));
}

const SymmetricMatrix& Cholesky::factor() const {
  require(!device_factor_.defined(), "the factor of a matrix [{}, {}] is on the device {}", size_, size_,
          name_of(device_factor_.device()));
  return factor_;
}

Tensor Cholesky::solve_on_device(const Tensor& b) const {
  require(b.rank() >= 1 && b.rank() <= 2 && b.extent(0) == size_ && b.dtype() == DType::float64 &&
              b.device() == Device::cpu,
          "Cholesky::solve needs float64 [{}] or [{}, R] of the host, got {} of the device {}", size_, size_,
          b.describe(), name_of(b.device()));
  Tensor x = b.contiguous().reshape({size_, b.rank() == 2 ? b.extent(1) : 1}).to(device_factor_.device());
  backend_of(x).cholesky_solve(device_factor_, x);
  return x.to(Device::cpu).reshape(b.shape());
}

Tensor Cholesky::solve(const Tensor& b) const {
  if (device_factor_.defined()) return solve_on_device(b);
  const auto [size, count, extent] = factor_.tiling();
  ColumnBlocks x(factor_.tiling(), b, "Cholesky::solve");
  constexpr int width = ColumnBlocks::width;
  const auto divide = [&](char transpose, int64_t k, int64_t group) {
    blas::trsm('L', 'L', transpose, 'N', extent, width, 1.0, factor_.tile(k, k), extent, x.block(group, k), extent);
  };
  if (count == 0) return b;
  parallel_for(x.groups(), [&](int64_t group) { divide('N', 0, group); });
  for (int64_t k = 0; k + 1 < count; k++)
    parallel_for((count - k - 1) * x.groups(), [&](int64_t item) {
      const int64_t i = k + 1 + item / x.groups(), group = item % x.groups();
      blas::gemm('N', 'N', extent, width, extent, -1.0, factor_.tile(i, k), extent, x.block(group, k), extent, 1.0,
                 x.block(group, i), extent);
      if (i == k + 1) divide('N', i, group);
    });
  parallel_for(x.groups(), [&](int64_t group) { divide('T', count - 1, group); });
  for (int64_t k = count - 1; k > 0; k--)
    parallel_for(k * x.groups(), [&](int64_t item) {
      const int64_t i = k - 1 - item / x.groups(), group = item % x.groups();
      blas::gemm('T', 'N', extent, width, extent, -1.0, factor_.tile(k, i), extent, x.block(group, k), extent, 1.0,
                 x.block(group, i), extent);
      if (i == k - 1) divide('T', i, group);
    });
  return x.to_tensor(b.shape());
}

// N. J. Higham, "FORTRAN codes for estimating the one-norm of a real or complex matrix", ACM TOMS 14 (1988),
// algorithm 4.1, for the symmetric matrix B = (A + ρI)⁻¹: climbs ‖Bx‖₁ over the corners of the unit ball, then tries
// one vector that defeats the cancellation which can mislead the climb.
double Cholesky::condition_estimate() const {
  const int64_t n = size();
  if (n == 0) return 1;
  const auto one_norm = [n](const Tensor& v) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += std::fabs(v.data<double>()[i]);
    return sum;
  };
  Tensor y = solve(Tensor::full({n}, 1.0 / static_cast<double>(n), DType::float64));
  double estimate = one_norm(y);
  Tensor signs = Tensor::zeros({n}, DType::float64);
  int64_t corner = -1;
  for (int step = 0; step < 5; step++) {
    bool changed = false;
    double* const s = signs.mutable_data<double>();
    for (int64_t i = 0; i < n; i++) {
      const double sign = y.data<double>()[i] < 0 ? -1 : 1;
      changed |= sign != s[i];
      s[i] = sign;
    }
    if (!changed) break;
    const Tensor z = solve(signs);
    int64_t largest = 0;
    for (int64_t i = 1; i < n; i++)
      if (std::fabs(z.data<double>()[i]) > std::fabs(z.data<double>()[largest])) largest = i;
    if (largest == corner) break;
    corner = largest;
    Tensor unit = Tensor::zeros({n}, DType::float64);
    unit.mutable_data<double>()[corner] = 1;
    y = solve(unit);
    const double climbed = one_norm(y);
    if (climbed <= estimate) break;
    estimate = climbed;
  }
  Tensor alternating({n}, DType::float64);
  double* const a = alternating.mutable_data<double>();
  for (int64_t i = 0; i < n; i++) {
    const double size = 1 + static_cast<double>(i) / static_cast<double>(std::max<int64_t>(1, n - 1));
    a[i] = i % 2 ? -size : size;
  }
  estimate = std::max(estimate, 2 * one_norm(solve(alternating)) / (3 * static_cast<double>(n)));
  return norm_ * estimate;
}

namespace {

// The largest ‖r_c‖₂ / ‖b_c‖₂ over columns c; a zero column of b with a zero residual counts as 0.
double relative_residual(const Tensor& residual, const Tensor& b) {
  const int64_t n = b.extent(0), columns = b.rank() == 2 ? b.extent(1) : 1;
  double largest = 0;
  for (int64_t c = 0; c < columns; c++) {
    double rr = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
      const double r = residual.data<double>()[i * columns + c], v = b.data<double>()[i * columns + c];
      rr += r * r, bb += v * v;
    }
    require(std::isfinite(rr) && std::isfinite(bb),
            "refine: column {} of the right-hand side or its residual is not finite", c);
    if (rr > 0) largest = std::max(largest, std::sqrt(rr / bb));
  }
  return largest;
}

}  // namespace

Refinement refine(const LinearOperator& inverse, const LinearOperator& apply, const Tensor& b, double target,
                  int max_steps) {
  const Tensor right = b.contiguous();
  const auto combine = [&](const Tensor& u, double factor_v, const Tensor& v) {  // u + factor · v
    require(v.shape() == u.shape() && v.dtype() == DType::float64, "refine: the operator must return {}, got {}",
            u.describe(), v.describe());
    const Tensor w = v.contiguous();
    Tensor out(u.shape(), DType::float64);
    double* const to = out.mutable_data<double>();
    for (int64_t i = 0; i < u.elements(); i++) to[i] = u.data<double>()[i] + factor_v * w.data<double>()[i];
    return out;
  };
  Refinement best;
  best.x = inverse(right);
  Tensor residual = combine(right, -1, apply(best.x));
  best.relative_residual = relative_residual(residual, right);
  while (best.steps < max_steps && best.relative_residual > target) {
    const Tensor x = combine(best.x, 1, inverse(residual));
    residual = combine(right, -1, apply(x));
    const double now = relative_residual(residual, right), before = best.relative_residual;
    if (now < before) best = {x, now, best.steps + 1};
    if (now > before / 2) break;
  }
  return best;
}

Refinement refine(const Cholesky& factor, const LinearOperator& apply, const Tensor& b, double target, int max_steps) {
  return refine([&](const Tensor& x) { return factor.solve(x); }, apply, b, target, max_steps);
}

}  // namespace fastntk
