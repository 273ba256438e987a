// Eigenvalues and what is read off them, products without rows, and conjugate gradients.
#include <catch2/catch.hpp>

#include "small_models.h"
#include "unlearn/fast_ntk.h"
#include "unlearn/matrix_free.h"
#include "unlearn/ntk.h"
#include "unlearn/spectrum.h"
#include "unlearn/svg.h"

using namespace fastntk;

namespace {

struct Setting {
  std::unique_ptr<FrozenFeatures> model = make_double<FrozenFeatures>(3, 6, 8, 3);
  Subset subset = choose(*model, "all");
  Samples samples = random_samples(21, {6}, 3, 4);
  Tensor rows = jacobian(*model, subset, samples.inputs).rows;
  Tensor theta = gather(*model, subset);
  Eigen::MatrixXd J = eigen_matrix(rows, 63);
};

}  // namespace

TEST_CASE("the spectrum of either Gram matrix is that of the kernel", "[spectrum]") {
  const Setting s;
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> exact(s.J * s.J.transpose());
  const int64_t n = 63;
  const Spectrum dual = full_spectrum(dual_gram(s.rows), n);
  REQUIRE(std::ssize(dual.values) == n);
  for (int64_t k = 0; k < n; k++)
    CHECK(dual.values[static_cast<size_t>(k)] == Approx(exact.eigenvalues()[n - 1 - k]).margin(1e-11));

  // More rows than parameters, so that Θ has zeros which JᵀJ has not.
  const Subset head = choose(*s.model, "head.bias+hidden.bias");
  const Tensor few = jacobian(*s.model, head, s.samples.inputs).rows;
  GramAccumulator sums(head.size(), 0);
  sums.add(few);
  const SymmetricMatrix gram = std::move(sums).finish().matrix, kernel = dual_gram(few);
  const Spectrum primal = full_spectrum(gram, n), full = full_spectrum(kernel, n);
  REQUIRE(std::ssize(primal.values) == 11);
  for (size_t k = 0; k < 11; k++) CHECK(primal.values[k] == Approx(full.values[k]).margin(1e-11));
  CHECK(effective_dimension(primal, 0.3) == Approx(effective_dimension(full, 0.3)).epsilon(1e-12));
  const Eigen::MatrixXd few_j = eigen_matrix(few, n), theta = few_j * few_j.transpose();
  CHECK(effective_dimension(primal, 0.3) ==
        Approx((theta * (theta + 0.3 * Eigen::MatrixXd::Identity(n, n)).inverse()).trace()).epsilon(1e-10));
  CHECK(condition_number(primal, 0.3) == Approx((primal.values[0] + 0.3) / 0.3));
  CHECK(std::isinf(condition_number(primal, 0)));
  CHECK(frobenius_norm(gram) == Approx(frobenius_norm(kernel)).epsilon(1e-12));
  CHECK(frobenius_norm(kernel) == Approx(theta.norm()).epsilon(1e-12));
  // A kernel that is its targets is aligned with them; one orthogonal to them is not.
  CHECK(kernel_target_alignment(25, 5, 5) == 1);
  CHECK_THROWS(effective_dimension(primal, 0));
}

TEST_CASE("of more parameters than rows JᵀJ has zeros that the kernel has not", "[spectrum]") {
  const Setting s;
  const Tensor few = s.rows.slice(0, 0, 2).contiguous();  // six rows
  GramAccumulator sums(s.subset.size(), 0);
  sums.add(few);
  const Spectrum primal = full_spectrum(std::move(sums).finish().matrix, 6), dual = full_spectrum(dual_gram(few), 6);
  REQUIRE(s.subset.size() > 6);
  REQUIRE(std::ssize(primal.values) == 6);
  CHECK(condition_number(primal, 0) == Approx(condition_number(dual, 0)));
}

TEST_CASE("conjugate gradients say that they met what is no number", "[matrix-free]") {
  Tensor b = Tensor::full({3}, 1, DType::float64);
  const auto solve = [&](double factor) {
    return conjugate_gradients([&](const Tensor& x) { return scale(x, factor).value; }, 1, b, nullptr, 1e-10);
  };
  CHECK(solve(2).relative_residual <= 1e-10);
  CHECK_THROWS_WITH(solve(std::nan("")), Catch::Contains("not finite"));
  b.fill(std::nan(""));
  CHECK_THROWS_WITH(solve(2), Catch::Contains("not finite"));
}

TEST_CASE("Lanczos finds the largest eigenvalues", "[spectrum]") {
  const Setting s;
  const SymmetricMatrix kernel = dual_gram(s.rows);
  const Spectrum full = full_spectrum(kernel, 63);
  const auto product = [&](const Tensor& x) { return kernel.multiply(x); };
  for (const int64_t count : {1, 5, 20}) {
    const Spectrum top = largest_eigenvalues(product, 63, count, 1e-10);
    REQUIRE(std::ssize(top.values) == count);
    for (size_t k = 0; k < top.values.size(); k++) {
      CHECK(top.values[k] == Approx(full.values[k]).epsilon(1e-9));
      CHECK(top.residuals[k] <= 1e-10 * top.values[0]);
    }
  }
  CHECK_THROWS_WITH(largest_eigenvalues(product, 63, 30, 1e-12, 31), Catch::Contains("did not reach"));
}

TEST_CASE("products without rows are those of the rows", "[matrix-free]") {
  const Setting s;
  const JacobianOperator J(*s.model, s.subset, s.samples.inputs, s.theta);
  const std::vector<int64_t> some = {0, 2, 3, 4, 7, 11, 12, 13, 14, 15, 16, 20};
  Eigen::MatrixXd JS(36, s.J.cols());
  for (size_t i = 0; i < some.size(); i++) JS.middleRows(static_cast<long>(3 * i), 3) = s.J.middleRows(3 * some[i], 3);
  const Tensor v = Random(8).normal_tensor({s.subset.size()}, DType::float64);
  const Tensor vs = Random(9).normal_tensor({s.subset.size(), 4}, DType::float64);
  const Tensor u = Random(10).normal_tensor({12, 3}, DType::float64);
  CHECK((eigen(J.times(some, v)) - JS * eigen(v)).norm() < 1e-12 * JS.norm() * eigen(v).norm());
  CHECK((eigen(J.transposed_times(some, u)) - JS.transpose() * eigen(u)).norm() < 1e-12 * JS.norm() * eigen(u).norm());
  CHECK(relative_error(eigen_matrix(J.gram_times(some, vs), s.subset.size()),
                       JS.transpose() * (JS * eigen_matrix(vs, s.subset.size()))) < 1e-13);
  // Λ = diag(p) − ppᵀ of each sample.
  Tensor weights({12, 3, 3}, DType::float64);
  Eigen::MatrixXd lambda = Eigen::MatrixXd::Zero(36, 36);
  for (long i = 0; i < 12; i++) {
    Eigen::Vector3d p = Eigen::Vector3d(1 + i, 2, 3) / static_cast<double>(6 + i);
    const Eigen::Matrix3d one = Eigen::Matrix3d(p.asDiagonal()) - p * p.transpose();
    lambda.block<3, 3>(3 * i, 3 * i) = one;
    for (long c = 0; c < 9; c++) weights.mutable_data<double>()[9 * i + c] = one(c / 3, c % 3);
  }
  CHECK(relative_error(eigen_matrix(J.gram_times(some, v, weights), s.subset.size()),
                       JS.transpose() * (lambda * (JS * eigen(v)))) < 1e-13);
  // The model is where it was, whatever θ* the products are taken at.
  const JacobianOperator elsewhere(*s.model, s.subset, s.samples.inputs, v);
  elsewhere.times(some, v);
  CHECK(same_bits(gather(*s.model, s.subset), s.theta));
}

TEST_CASE("conjugate gradients agree with primal and dual, and the preconditioner saves steps", "[matrix-free]") {
  const Setting s;
  const JacobianOperator J(*s.model, s.subset, s.samples.inputs, s.theta);
  const LinearOperator gram = [&](const Tensor& x) { return J.gram_times(all_positions(21), x); };
  const double ridge = 1e-2;
  const Tensor r = Random(11).normal_tensor({63, 2}, DType::float64);
  Tensor b({s.subset.size(), 2}, DType::float64);
  const Eigen::MatrixXd right = s.J.transpose() * eigen_matrix(r, 63);
  for (long i = 0; i < right.size(); i++) b.mutable_data<double>()[i] = right(i / 2, i % 2);
  const auto P = static_cast<long>(s.subset.size());
  const Eigen::MatrixXd primal = (s.J.transpose() * s.J + ridge * Eigen::MatrixXd::Identity(P, P)).llt().solve(right);
  const Eigen::MatrixXd dual =
      s.J.transpose() *
      (s.J * s.J.transpose() + ridge * Eigen::MatrixXd::Identity(63, 63)).llt().solve(eigen_matrix(r, 63));
  CHECK(relative_error(primal, dual) < 1e-9);
  const ConjugateGradients plain = conjugate_gradients(gram, ridge, b, nullptr, 1e-12);
  const NystromPreconditioner preconditioner(gram, P, 30, ridge);
  const ConjugateGradients fast = conjugate_gradients(gram, ridge, b, &preconditioner, 1e-12);
  CHECK(relative_error(eigen_matrix(plain.x, P), primal) < 1e-8);
  CHECK(relative_error(eigen_matrix(fast.x, P), primal) < 1e-8);
  CHECK(fast.relative_residual < 1e-11);
  CHECK(fast.steps < plain.steps);
  // A rank as large as that of A leaves nothing to do; the eigenvalues are those of A.
  const NystromPreconditioner exact(gram, P, P, ridge);
  CHECK(conjugate_gradients(gram, ridge, b, &exact, 1e-9).steps <= 3);
  CHECK(exact.eigenvalues()[0] == Approx(full_spectrum(dual_gram(s.rows), 63).values[0]).epsilon(1e-9));
  CHECK_THROWS_WITH(conjugate_gradients(gram, 1e-9, b, nullptr, 1e-14, 3),
                    Catch::Contains("reached a relative residual"));
  CHECK(conjugate_gradients(gram, ridge, Tensor::zeros({P}, DType::float64), nullptr).steps == 0);
}

TEST_CASE("shift and solve without rows are those with rows", "[matrix-free]") {
  const Setting s;
  const LinearisedSet with_rows{s.rows, Random(12).normal_tensor({21, 3}, DType::float64), s.samples.labels};
  LinearisedSet without = {.logits = with_rows.logits, .labels = with_rows.labels};
  without.products = std::make_shared<JacobianOperator>(*s.model, s.subset, s.samples.inputs, s.theta);
  const Tensor theta0 = Random(13).normal_tensor({s.subset.size()}, DType::float64);
  const Loss& loss = find_loss("mse");
  FastNtk free(without, {1, 5, 6, 19}, theta0, s.theta, loss, 0.1, 0.08, Representation::matrix_free);
  for (const auto representation : {Representation::primal, Representation::dual}) {
    FastNtk rows(with_rows, {1, 5, 6, 19}, theta0, s.theta, loss, 0.1, 0.08, representation);
    for (const char* const rule : {"shift", "solve"}) {
      const Update update = free.update(rule);
      CHECK((eigen(update.theta) - eigen(rows.update(rule).theta)).norm() < 1e-8 * eigen(s.theta).norm());
      CHECK(update.solves[0].representation == "matrix-free");
      CHECK(update.solves[0].relative_residual < 1e-11);
    }
  }
  CHECK_THROWS_AS(FastNtk(without, {1}, theta0, s.theta, loss, 0.1, 0.1, Representation::dual).update("solve"),
                  UsageError);
  CHECK_THROWS_AS(FastNtk(with_rows, {1}, theta0, s.theta, loss, 0.1, 0.1, Representation::matrix_free).update("solve"),
                  UsageError);
}

TEST_CASE("figures are whole documents and refuse what cannot be drawn", "[svg]") {
  const Plot plot{
      .title = "a < b & c", .x = {"index", true}, .y = {"value", true}, .series = {{"λ", {1, 2, 3}, {5, 0, -1}}}};
  const std::string text = svg_figure({plot, HeatMap{.title = "m", .values = Tensor::full({3, 700}, 2)}});
  CHECK(text.starts_with("<svg"));
  CHECK(text.ends_with("</svg>\n"));
  CHECK_THAT(text, Catch::Contains("a &lt; b &amp; c") && Catch::Contains("data:image/png;base64,") &&
                       !Catch::Contains("nan"));
  CHECK(svg_panel(Plot{}).ends_with("</svg>\n"));
  CHECK_THROWS(svg_panel(Plot{.series = {{"s", {1, 2}, {1}}}}));
  CHECK_THROWS(svg_panel(HeatMap{.values = Tensor::zeros({0, 3})}));
}
