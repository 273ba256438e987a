#include "unlearn/spectrum.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/progress.h"
#include "engine/random.h"

namespace fastntk {
namespace {

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

}  // namespace

Spectrum full_spectrum(const SymmetricMatrix& matrix, int64_t size) {
  Spectrum out{.values = matrix.eigenvalues().to_vector<double>(), .size = size, .complete = true};
  std::reverse(out.values.begin(), out.values.end());
  // JᵀJ with more parameters than rows: the rest are zeros that Θ has not.
  if (std::ssize(out.values) > size) out.values.resize(static_cast<size_t>(size));
  return out;
}

Spectrum largest_eigenvalues(const LinearOperator& apply, int64_t n, int64_t count, double tolerance, int max_steps,
                             uint64_t seed) {
  require(count > 0 && count <= n, "{} eigenvalues of a matrix of size {}", count, n);
  const int64_t most = std::min<int64_t>(n, max_steps);
  std::vector<Tensor> basis;
  std::vector<double> alpha, beta;
  Tensor v = Random(seed).normal_tensor({n}, DType::float64);
  double length = std::sqrt(dot(v.data<double>(), v.data<double>(), n));
  for (int64_t step = 1;; step++) {
    check_interrupt();
    double* const q = v.mutable_data<double>();
    for (int64_t i = 0; i < n; i++) q[i] /= length;
    basis.push_back(v);
    v = apply(v).clone();
    double* const w = v.mutable_data<double>();
    alpha.push_back(dot(w, basis.back().data<double>(), n));
    // Twice is enough (Kahan and Parlett).
    for (int pass = 0; pass < 2; pass++)
      for (const Tensor& u : basis) {
        const double along = dot(w, u.data<double>(), n);
        for (int64_t i = 0; i < n; i++) w[i] -= along * u.data<double>()[i];
      }
    length = std::sqrt(dot(w, w, n));
    const bool ended = step >= most || length <= 1e-14 * std::fabs(alpha.front());
    if (step >= count || ended) {
      const auto m = static_cast<Eigen::Index>(step);
      Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver;
      solver.computeFromTridiagonal(Eigen::Map<const Eigen::VectorXd>(alpha.data(), m),
                                    Eigen::Map<const Eigen::VectorXd>(beta.data(), m - 1));
      Spectrum out{.size = n, .steps = static_cast<int>(step)};
      double worst = 0;
      for (Eigen::Index k = m - 1; k >= 0 && std::ssize(out.values) < count; k--) {
        out.values.push_back(solver.eigenvalues()[k]);
        out.residuals.push_back(step == n ? 0 : length * std::fabs(solver.eigenvectors()(m - 1, k)));
        worst = std::max(worst, out.residuals.back());
      }
      const double allowed = tolerance * std::fabs(out.values.front());
      if (worst <= allowed || (ended && step < most) || step == n) return out;
      require(step < most, "the {} largest eigenvalues did not reach a residual of {:.1e} in {} steps (it is {:.1e})",
              count, allowed, step, worst);
    }
    beta.push_back(length);
  }
}

double effective_dimension(const Spectrum& spectrum, double ridge) {
  require(spectrum.complete && ridge > 0, "the effective dimension needs all eigenvalues and ρ > 0, got ρ = {}", ridge);
  double sum = 0;
  for (const double value : spectrum.values) sum += std::max(value, 0.0) / (std::max(value, 0.0) + ridge);
  return sum;
}

double condition_number(const Spectrum& spectrum, double ridge) {
  require(spectrum.complete && !spectrum.values.empty(), "the condition number needs all eigenvalues");
  const bool zeros = std::ssize(spectrum.values) < spectrum.size;
  const double least = (zeros ? 0 : std::max(spectrum.values.back(), 0.0)) + ridge;
  return least > 0 ? (spectrum.values.front() + ridge) / least : std::numeric_limits<double>::infinity();
}

double kernel_target_alignment(double target_product, double frobenius, double target_square) {
  return target_product / (frobenius * target_square);
}

double frobenius_norm(const SymmetricMatrix& matrix) {
  const int64_t tiles = matrix.tiling().count, area = int64_t{matrix.tiling().extent} * matrix.tiling().extent;
  double sum = 0;
  for (int64_t i = 0; i < tiles; i++)
    for (int64_t j = 0; j <= i; j++) sum += (i == j ? 1 : 2) * dot(matrix.tile(i, j), matrix.tile(i, j), area);
  return std::sqrt(sum);
}

}  // namespace fastntk
