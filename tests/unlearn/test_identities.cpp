// What must hold of Fast-NTK whatever the model: ridge regression, primal = dual = one shot, kernels in closed form.
#include <catch2/catch.hpp>
#include <numbers>

#include "training/gradient.h"
#include "unlearn/fast_ntk.h"
#include "unlearn/jacobian.h"
#include "unlearn/relinearise.h"
#include "unlearn/small_models.h"
#include "worse.h"

using namespace fastntk;

namespace {

// The ridge regression of one-hot targets on features with a bias, row by row of [W | b], towards θ0; by Eigen, from
// features that plain loops compute.
struct Ridge {
  Eigen::MatrixXd features;  // [n, F + 1], the last column is 1
  Eigen::MatrixXd targets;   // [n, C]

  Ridge(const FrozenFeatures& model, const Samples& s, int64_t classes) {
    const auto parameters = model.named_parameters();
    const long F = parameters[0].second->value.extent(0);
    const Eigen::MatrixXd v = eigen_matrix(parameters[0].second->value, F), x = eigen_matrix(s.inputs, s.size());
    const Eigen::VectorXd c = eigen(parameters[1].second->value);
    features = Eigen::MatrixXd::Ones(s.size(), F + 1);
    features.leftCols(F) = ((x * v.transpose()).rowwise() + c.transpose()).cwiseMax(0);
    targets = Eigen::MatrixXd::Zero(s.size(), classes);
    for (long i = 0; i < s.size(); i++) targets(i, s.labels.data<int64_t>()[i]) = 1;
  }

  // θ in the order of the subset `head`: weight [C, F] row by row, then bias [C].
  Eigen::VectorXd solve(const Positions& positions, double ridge, const Eigen::VectorXd& theta0) const {
    const long n = static_cast<long>(positions.size()), C = targets.cols(), F = features.cols() - 1;
    Eigen::MatrixXd x(n, F + 1), y(n, C), start(F + 1, C);
    for (long i = 0; i < n; i++) {
      x.row(i) = features.row(positions[static_cast<size_t>(i)]);
      y.row(i) = targets.row(positions[static_cast<size_t>(i)]);
    }
    for (long c = 0; c < C; c++) {
      start.block(0, c, F, 1) = theta0.segment(c * F, F);
      start(F, c) = theta0(C * F + c);
    }
    const Eigen::MatrixXd normal = x.transpose() * x + ridge * Eigen::MatrixXd::Identity(F + 1, F + 1);
    const Eigen::MatrixXd w = start + normal.ldlt().solve(x.transpose() * (y - x * start));
    Eigen::VectorXd theta(theta0.size());
    for (long c = 0; c < C; c++) {
      theta.segment(c * F, F) = w.block(0, c, F, 1);
      theta(C * F + c) = w(F, c);
    }
    return theta;
  }
};

LinearisedSet linearise(const Module& model, const Subset& subset, const Samples& s) {
  Jacobian j = jacobian(model, subset, s.inputs);
  return {j.rows, j.logits, s.labels};
}

// The bound for solutions of one system by different ways.
double bound(const std::vector<SolveReport>& solves) {
  double condition = 1;
  for (const SolveReport& s : solves) condition = std::max(condition, s.condition_estimate);
  return std::max(1e-8, 100 * condition * std::ldexp(1.0, -53));
}

}  // namespace

TEST_CASE("identity 1: on a model linear in θ, solve and shift are ridge regression on the retain set") {
  constexpr int64_t n = 40, C = 3;
  const auto model = make_double<FrozenFeatures>(7, 4, 6, C);
  const Subset subset = choose(*model, "head");
  const Samples data = random_samples(n, {4}, C, 3);
  const Ridge exact(*model, data, C);
  const Positions forget = {0, 3, 4, 11, 12, 13, 30, 39}, retain = complement(forget, n);
  const Eigen::VectorXd theta0 = eigen(gather(*model, subset));
  const Eigen::VectorXd anywhere = eigen(Random(5).normal_tensor({subset.size()}, DType::float64));
  constexpr double ridge = 0.3;
  const Eigen::VectorXd on_all = exact.solve(all_positions(n), ridge, theta0);
  const Eigen::VectorXd on_retain = exact.solve(retain, ridge, theta0);

  for (const Eigen::VectorXd& theta_star : {anywhere, on_all, theta0}) {
    scatter(*model, subset, tensor(theta_star));
    const LinearisedSet set = linearise(*model, subset, data);
    for (const Representation r : {Representation::automatic, Representation::primal, Representation::dual}) {
      FastNtk ntk(set, forget, tensor(theta0), tensor(theta_star), find_loss("mse"), ridge, ridge, r);
      CHECK(relative_error(eigen(ntk.update("solve").theta), on_retain) <= 1e-9);
      const Eigen::VectorXd delta = eigen(ntk.update("shift").theta) - theta_star;
      CHECK(relative_error(delta, on_retain - on_all) <= 1e-9);
    }
  }
  // From the exact ridge solution on D, shift arrives at the one on D_r.
  scatter(*model, subset, tensor(on_all));
  const LinearisedSet set = linearise(*model, subset, data);
  FastNtk ntk(set, forget, tensor(theta0), tensor(on_all), find_loss("mse"), ridge, ridge);
  CHECK(relative_error(eigen(ntk.update("shift").theta), on_retain) <= 1e-9);
}

TEST_CASE("identity 2: primal, dual and the one-shot form give the same update") {
  const auto [n, C, P] = GENERATE(table<int64_t, int64_t, int64_t>({{12, 3, 20}, {12, 3, 36}, {9, 2, 70}, {5, 1, 3}}));
  const double ridge = GENERATE(1e-4, 1.0);
  const DType dtype = GENERATE(DType::float64, DType::float32);
  const LinearisedSet set = random_set(n, C, P, 11, dtype);
  const Tensor theta0 = Random(1).normal_tensor({P}, DType::float64);
  const Tensor theta_star = Random(2).normal_tensor({P}, DType::float64);
  const Loss& loss = find_loss("mse");
  FastNtk primal(set, {1, 4}, theta0, theta_star, loss, ridge, ridge, Representation::primal);
  FastNtk dual(set, {1, 4}, theta0, theta_star, loss, ridge, ridge, Representation::dual);
  const Update a = primal.update("shift"), b = dual.update("shift");
  const double tolerance = bound(a.solves) + bound(b.solves);
  CAPTURE(n, C, P, ridge, a.solves[0].condition_estimate, b.solves[0].condition_estimate);
  const Eigen::VectorXd star = eigen(theta_star), delta = eigen(a.theta) - star;
  CHECK(relative_error(eigen(b.theta) - star, delta) <= tolerance);
  CHECK(relative_error(eigen(primal.one_shot_delta()), delta) <= tolerance);
  CHECK(a.solves[0].representation == "primal");
  CHECK(a.solves[0].unknowns == P);
  CHECK(b.solves[0].representation == "dual");
  CHECK(b.solves[0].unknowns == (n - 2) * C);
  for (const Update* u : {&a, &b})
    for (const SolveReport& s : u->solves)
      CHECK(s.relative_residual <= 8 * s.condition_estimate * std::ldexp(1.0, -53));
}

TEST_CASE("identity 3: an empty forget set changes nothing, and there is no linearisation error") {
  constexpr int64_t n = 14, C = 3;
  const auto model = make_double<NormedLinear>(7, 5, C);
  const Subset subset = choose(*model, "all");
  const Samples data = random_samples(n, {5}, C, 3);
  const LinearisedSet set = linearise(*model, subset, data);
  const Tensor theta_star = gather(*model, subset), theta0 = Tensor::zeros(theta_star.shape(), DType::float64);
  FastNtk ntk(set, {}, theta0, theta_star, find_loss("ce"), 0.5, 0.5);
  for (const char* const rule : {"shift", "golatkar", "golatkar-scaled", "residual", "newton-shift"}) {
    CAPTURE(rule);
    CHECK(same_bits(ntk.update(rule).theta, theta_star));
  }
  CHECK(eigen(ntk.one_shot_delta()).norm() == 0);
  const auto at_star =
      directional_derivative(*model, subset, data.inputs, Tensor::zeros({subset.size()}, DType::float64));
  CHECK(linearisation_error(at_star, predict(*model, data.inputs)) == 0);
}

TEST_CASE("identity 4: the kernel of a linear model is XXᵀ ⊗ I, plus 11ᵀ ⊗ I with a bias") {
  constexpr int64_t n = 6, F = 4, C = 3;
  const auto model = make_double<Linear>(1, F, C);
  const Samples data = random_samples(n, {F}, C, 9);
  const Eigen::MatrixXd x = eigen_matrix(data.inputs, n), gram = x * x.transpose();
  for (const bool bias : {false, true}) {
    const Subset subset = choose(*model, bias ? "all" : "weight");
    const Eigen::MatrixXd theta = eigen_matrix(dual_gram(jacobian(*model, subset, data.inputs).rows).dense(), n * C);
    double error = 0;
    for (long i = 0; i < n * C; i++)
      for (long j = 0; j < n * C; j++) {
        const double expected = i % C == j % C ? gram(i / C, j / C) + (bias ? 1 : 0) : 0;
        error = test::worse(error, std::abs(theta(i, j) - expected));
      }
    CHECK(error <= 1e-12);
  }
}

TEST_CASE("identity 4: batch norm before a linear map has the kernel W diag(x̂ᵢ⊙x̂ⱼ + 1) Wᵀ, also where γ is 0") {
  constexpr int64_t n = 5, F = 4, C = 3;
  const auto model = make_double<NormedLinear>(1, F, C);
  const Samples data = random_samples(n, {F}, C, 9);
  auto parameters = model->named_parameters();
  auto buffers = model->named_buffers();
  const double mean[] = {0.3, -1, 2, 0}, variance[] = {0.5, 2, 1, 3}, gamma[] = {1.5, 0, -2, 0};
  parameters[0].second->value.copy_from(Tensor::from<double>({F}, gamma));
  buffers[0].second->value.copy_from(Tensor::from<double>({F}, mean));
  buffers[1].second->value.copy_from(Tensor::from<double>({F}, variance));
  REQUIRE(parameters[0].first == "bn.weight");
  REQUIRE(buffers[1].first == "bn.running_var");

  Eigen::MatrixXd x = eigen_matrix(data.inputs, n);
  for (long f = 0; f < F; f++) x.col(f) = (x.col(f).array() - mean[f]) / std::sqrt(variance[f] + 1e-5);
  const Eigen::MatrixXd w = eigen_matrix(parameters[2].second->value, C);
  const Subset subset = choose(*model, "bn");
  const Eigen::MatrixXd theta = eigen_matrix(dual_gram(jacobian(*model, subset, data.inputs).rows).dense(), n * C);
  for (long i = 0; i < n; i++)
    for (long j = 0; j < n; j++) {
      const Eigen::VectorXd diagonal = (x.row(i).cwiseProduct(x.row(j)).array() + 1).matrix().transpose();
      CHECK(relative_error(theta.block(i * C, j * C, C, C), w * diagonal.asDiagonal() * w.transpose()) <= 1e-12);
    }
}

TEST_CASE("identity 5: the kernel of one wide hidden ReLU layer tends to its closed form") {
  constexpr int64_t width = 1 << 16;
  const auto model = make_double<WideLayer>(21, 2, width);
  auto parameters = model->named_parameters();
  const Random signs(4);
  for (int64_t j = 0; j < width; j++)
    parameters[1].second->value.mutable_data<double>()[j] = signs.uniform(static_cast<uint64_t>(j)) < 0.5 ? -1 : 1;
  const double cosines[] = {1, 0.5, 0, -0.5, -1}, expected[] = {2, 0.942331, 0.318310, -0.057669, 0};
  std::vector<double> inputs = {1, 0};
  for (const double u : cosines) inputs.insert(inputs.end(), {u, std::sqrt(1 - u * u)});
  const Tensor x = Tensor::from<double>({6, 2}, inputs);
  const Tensor rows = jacobian(*model, choose(*model, "all"), x).rows;
  const Eigen::MatrixXd theta = eigen_matrix(dual_gram(rows).dense(), 6);
  for (long i = 0; i < 5; i++) {
    const double u = cosines[i];
    const double closed = (2 * u * (std::numbers::pi - std::acos(u)) + std::sqrt(1 - u * u)) / std::numbers::pi;
    CHECK(closed == Approx(expected[i]).margin(1e-6));
    CHECK(std::abs(theta(0, 1 + i) - closed) <= 5 / std::sqrt(static_cast<double>(width)));
  }
}

TEST_CASE("identity 6: ⟨u, Jv⟩ = ⟨Jᵀu, v⟩") {
  const LinearisedSet set = random_set(11, 3, 517, 4, GENERATE(DType::float64, DType::float32));
  const Positions some = {0, 2, 3, 7, 10};
  const Tensor u = Random(1).normal_tensor({5, 3}, DType::float64), v = Random(2).normal_tensor({517}, DType::float64);
  const double left = eigen(u).dot(eigen(rows_times(set, some, v)));
  const double right = eigen(transposed_rows_times(set, some, u)).dot(eigen(v));
  CHECK(left == Approx(right).epsilon(1e-12));
}

TEST_CASE("identity 6: Gram matrices of disjoint subsets add up") {
  const LinearisedSet set = random_set(90, 3, 40, 4);
  const Positions some = {0, 5, 6, 7, 40, 71, 89}, rest = complement(some, 90);
  for (const char* const name : {"mse", "ce"}) {
    const Loss& loss = find_loss(name);
    const auto gram = [&](const Positions& s) {
      Tensor f({static_cast<int64_t>(s.size()), 3}, DType::float64);
      for (size_t i = 0; i < s.size(); i++) f.select(0, static_cast<int64_t>(i)).copy_from(set.logits.select(0, s[i]));
      return eigen_matrix(weighted_gram(set, s, loss, f).dense(), 40);
    };
    CHECK(relative_error(gram(some) + gram(rest), gram(all_positions(90))) <= 1e-13);
  }
}

TEST_CASE("identity 6: the order of the samples and the batch size change nothing") {
  constexpr int64_t n = 10, C = 3;
  const auto model = make_double<FrozenFeatures>(7, 4, 6, C);
  const Subset subset = choose(*model, "all");
  const Samples data = random_samples(n, {4}, C, 3);
  const Jacobian plain = jacobian(*model, subset, data.inputs, {.tile = 1});
  for (const int64_t tile : {2, 3, 4, 7, 10, 64}) {
    const Jacobian other = jacobian(*model, subset, data.inputs, {.tile = tile});
    CHECK(same_bits(other.rows, plain.rows));
    CHECK(same_bits(other.logits, plain.logits));
  }
  const std::vector<int64_t> order = {7, 2, 9, 0, 1, 8, 5, 3, 6, 4};
  const Jacobian shuffled = jacobian(*model, subset, select(data, order).inputs, {.tile = 4});
  for (size_t i = 0; i < order.size(); i++)
    CHECK(same_bits(shuffled.rows.select(0, static_cast<int64_t>(i)), plain.rows.select(0, order[i])));
}
