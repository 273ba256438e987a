#include "unlearn/fast_ntk.h"

#include <catch2/catch.hpp>

#include "training/gradient.h"
#include "unlearn/relinearise.h"
#include "unlearn/small_models.h"

using namespace fastntk;
using Catch::Contains;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

// The rows of J and the logits of some samples, dense, and Σ CE(f_lin) + ½ρ‖θ − θ0‖² with its derivatives by Eigen.
struct Linearised {
  MatrixXd j;  // [n·C, P]
  VectorXd f;  // [n·C]
  std::vector<int64_t> labels;
  long classes;

  Linearised(const LinearisedSet& set, const Positions& positions) : classes(set.classes()) {
    const long n = static_cast<long>(positions.size()), C = classes, P = set.parameters();
    const MatrixXd all = eigen_matrix(set.rows, set.size() * C), logits = eigen_matrix(set.logits, set.size());
    j.resize(n * C, P), f.resize(n * C);
    for (long i = 0; i < n; i++) {
      const long at = positions[static_cast<size_t>(i)];
      j.middleRows(i * C, C) = all.middleRows(at * C, C);
      f.segment(i * C, C) = logits.row(at).transpose();
      labels.push_back(set.labels.data<int64_t>()[at]);
    }
  }
  long size() const { return static_cast<long>(labels.size()); }
  VectorXd one_hot() const {
    VectorXd y = VectorXd::Zero(f.size());
    for (long i = 0; i < size(); i++) y(i * classes + labels[static_cast<size_t>(i)]) = 1;
    return y;
  }
  VectorXd softmax(const VectorXd& logits) const {
    VectorXd p = logits;
    for (long i = 0; i < size(); i++) {
      auto row = p.segment(i * classes, classes);
      row = (row.array() - row.maxCoeff()).exp();
      row /= row.sum();
    }
    return p;
  }
  VectorXd gradient(const VectorXd& theta, const VectorXd& theta_star, const VectorXd& theta0, double ridge) const {
    return j.transpose() * (softmax(f + j * (theta - theta_star)) - one_hot()) + ridge * (theta - theta0);
  }
  // Newton's method; a step is halved until the gradient falls.
  VectorXd optimum(const VectorXd& theta_star, const VectorXd& theta0, double ridge) const {
    VectorXd theta = theta0, g = gradient(theta, theta_star, theta0, ridge);
    for (int k = 0; k < 100; k++) {
      const VectorXd p = softmax(f + j * (theta - theta_star));
      MatrixXd hessian = ridge * MatrixXd::Identity(j.cols(), j.cols());
      for (long i = 0; i < size(); i++) {
        const MatrixXd ji = j.middleRows(i * classes, classes);
        const VectorXd pi = p.segment(i * classes, classes);
        hessian += ji.transpose() * (MatrixXd(pi.asDiagonal()) - pi * pi.transpose()) * ji;
      }
      const VectorXd direction = hessian.ldlt().solve(g);
      for (int halvings = 0; halvings < 30; halvings++) {
        const double t = std::ldexp(1, -halvings);
        const VectorXd next = theta - t * direction, next_g = gradient(next, theta_star, theta0, ridge);
        if (next_g.norm() >= g.norm()) continue;
        theta = next, g = next_g;
        break;
      }
    }
    return theta;
  }
  // argmin ½‖f_lin − y‖² + ½ρ‖θ − θ0‖² for the residual r at θ0, less θ0.
  VectorXd step(const VectorXd& residual, double ridge) const {
    const MatrixXd normal = j.transpose() * j + ridge * MatrixXd::Identity(j.cols(), j.cols());
    return normal.ldlt().solve(j.transpose() * residual);
  }
};

constexpr int64_t n = 20, C = 3, P = 12;
constexpr double ridge = 0.4, retain_ridge = 0.3;
const Positions forget = {2, 3, 9, 17}, retain = complement(forget, n), all = all_positions(n);

struct Problem {
  LinearisedSet set = random_set(n, C, P, 5);
  Tensor theta0 = Random(1).normal_tensor({P}, DType::float64),
         theta_star = Random(2).normal_tensor({P}, DType::float64);
  VectorXd start = eigen(theta0), star = eigen(theta_star);
  Linearised on_all{set, all}, on_retain{set, retain};
  FastNtk rules(const char* loss, double rho_all = ridge, double rho_retain = retain_ridge) const {
    return {set, forget, theta0, theta_star, find_loss(loss), rho_all, rho_retain};
  }
};

}  // namespace

TEST_CASE("shift, solve, golatkar and residual are the normal equations they stand for, each set with its own ridge") {
  const Problem p;
  FastNtk ntk = p.rules("ce");
  const auto change = [&](auto&& residual) -> VectorXd {
    return p.on_retain.step(residual(p.on_retain), retain_ridge) - p.on_all.step(residual(p.on_all), ridge);
  };
  const auto squared = [&](const Linearised& s) -> VectorXd { return s.one_hot() - s.f - s.j * (p.start - p.star); };
  const auto at_star = [&](const Linearised& s) -> VectorXd { return s.one_hot() - s.f; };
  const auto soft = [&](const Linearised& s) -> VectorXd {
    return s.one_hot() - s.softmax(s.f) - s.j * (p.start - p.star);
  };
  CHECK(relative_error(eigen(ntk.update("shift").theta), p.star + change(squared)) <= 1e-11);
  CHECK(relative_error(eigen(ntk.update("golatkar").theta), p.star + change(at_star)) <= 1e-11);
  CHECK(relative_error(eigen(ntk.update("residual").theta), p.star + change(soft)) <= 1e-11);
  const VectorXd solved = p.start + p.on_retain.step(squared(p.on_retain), retain_ridge);
  CHECK(relative_error(eigen(ntk.update("solve").theta), solved) <= 1e-11);

  // The trapezium scale 1 + 2|cos(δ, e)| ‖e‖ / ‖δ‖.
  const VectorXd delta = change(at_star), e = p.star - p.start - p.on_retain.step(at_star(p.on_retain), retain_ridge);
  const double scale = 1 + 2 * std::abs(delta.dot(e)) / delta.squaredNorm();
  const Update scaled = ntk.update("golatkar-scaled");
  CHECK(scaled.scale == Approx(scale).epsilon(1e-10));
  CHECK(relative_error(eigen(scaled.theta), p.star + scale * delta) <= 1e-10);
}

TEST_CASE("the sum convention keeps the ridge when samples leave, the mean convention lowers it") {
  const Problem p;
  const Update mean = p.rules("mse", ridge, ridge * static_cast<double>(retain.size()) / n).update("shift");
  const Update sum = p.rules("mse", ridge, ridge).update("shift");
  CHECK(mean.solves[0].ridge == Approx(0.32));
  CHECK(mean.solves[1].ridge == Approx(0.4));
  CHECK(sum.solves[0].ridge == Approx(0.4));
  CHECK(relative_error(eigen(mean.theta), eigen(sum.theta)) > 1e-4);
  // The one-shot form of the paper is the sum convention.
  CHECK(relative_error(p.star + eigen(p.rules("mse", ridge, ridge).one_shot_delta()), eigen(sum.theta)) <= 1e-9);
}

TEST_CASE("primal and dual agree for every rule with a quadratic objective") {
  const Problem p;
  for (const std::string rule : {"shift", "solve", "golatkar", "golatkar-scaled", "residual"}) {
    CAPTURE(rule);
    const auto by = [&](Representation r) {
      FastNtk ntk(p.set, forget, p.theta0, p.theta_star, find_loss("ce"), ridge, retain_ridge, r);
      return eigen(ntk.update(rule).theta);
    };
    CHECK(relative_error(by(Representation::dual), by(Representation::primal)) <= 1e-10);
    CHECK(by(Representation::automatic) == by(Representation::primal));  // P = 12 ≤ 16·3
  }
}

TEST_CASE("newton finds the stationary point of the linearised cross-entropy objective") {
  const Problem p;
  FastNtk ntk = p.rules("ce");
  const Update solved = ntk.update("newton-solve");
  const VectorXd at = eigen(solved.theta);
  const double scale = p.on_retain.gradient(p.start, p.star, p.start, retain_ridge).norm();
  CHECK(p.on_retain.gradient(at, p.star, p.start, retain_ridge).norm() <= 1e-9 * scale);
  CHECK(relative_error(at, p.on_retain.optimum(p.star, p.start, retain_ridge)) <= 1e-8);
  REQUIRE(solved.newton.size() >= 2);
  for (size_t k = 1; k < solved.newton.size(); k++)
    CHECK(solved.newton[k].objective <= solved.newton[k - 1].objective + 1e-12);
  CHECK(solved.newton.back().gradient_norm <= 1e-9 * scale);

  const VectorXd shifted = p.star + at - p.on_all.optimum(p.star, p.start, ridge);
  CHECK(relative_error(eigen(ntk.update("newton-shift").theta), shifted) <= 1e-8);
}

TEST_CASE("on a model linear in θ, newton-shift from the optimum on D arrives at the optimum on D_r") {
  const auto model = make_double<FrozenFeatures>(3, 4, 5, C);
  const Subset subset = choose(*model, "head");
  const Samples data = random_samples(n, {4}, C, 8);
  const Tensor theta0 = gather(*model, subset);
  const auto linearise = [&] {
    const Jacobian j = jacobian(*model, subset, data.inputs);
    return LinearisedSet{j.rows, j.logits, data.labels};
  };
  const LinearisedSet at_start = linearise();
  const VectorXd start = eigen(theta0);
  const VectorXd best_all = Linearised(at_start, all).optimum(start, start, ridge);
  const VectorXd best_retain = Linearised(at_start, retain).optimum(start, start, retain_ridge);
  scatter(*model, subset, tensor(best_all));
  const LinearisedSet set = linearise();
  FastNtk ntk(set, forget, theta0, tensor(best_all), find_loss("ce"), ridge, retain_ridge);
  const VectorXd delta = eigen(ntk.update("newton-shift").theta) - best_all;
  CHECK(relative_error(delta, best_retain - best_all) <= 1e-7);
}

TEST_CASE("relinearise lowers the true objective and tends to the optimum of retraining") {
  const char* const name = GENERATE("ce", "mse");
  const auto model = make_double<FrozenFeatures>(3, 4, 5, C);
  const std::string parameters = GENERATE(as<std::string>{}, "head", "all");
  CAPTURE(name, parameters);
  const Subset subset = choose(*model, parameters);
  const Samples data = random_samples(n, {4}, C, 8);
  const Tensor theta0 = gather(*model, subset);
  const Tensor away = tensor(eigen(theta0) + 0.5 * eigen(Random(4).normal_tensor({subset.size()}, DType::float64)));
  scatter(*model, subset, away);
  const auto steps =
      relinearise(*model, subset, data, find_loss(name), ridge, theta0, parameters == "head" ? 6 : 25, {});
  REQUIRE(!steps.empty());
  for (size_t k = 0; k < steps.size(); k++) {
    CHECK(steps[k].objective_after <= steps[k].objective_before);
    if (k > 0) CHECK(steps[k].objective_before == Approx(steps[k - 1].objective_after).epsilon(1e-14));
  }
  const Objective after = objective(*model, subset, data, find_loss(name), ridge, theta0);
  CHECK(after.value() == Approx(steps.back().objective_after).epsilon(1e-14));
  CHECK(after.gradient_norm <= (parameters == "head" ? 1e-7 : 0.1) * steps[0].gradient_norm_before);
}

TEST_CASE("relinearise refuses less than one step and leaves the model where it is at an optimum") {
  const auto model = make_double<FrozenFeatures>(3, 4, 5, C);
  const Subset subset = choose(*model, "head");
  const Samples data = random_samples(n, {4}, C, 8);
  const Tensor theta0 = gather(*model, subset);
  CHECK_THROWS_WITH(relinearise(*model, subset, data, find_loss("mse"), ridge, theta0, 0, {}),
                    Contains("at least one step, got 0"));
  relinearise(*model, subset, data, find_loss("mse"), ridge, theta0, 4, {});
  const Tensor before = gather(*model, subset);
  const auto steps = relinearise(*model, subset, data, find_loss("mse"), ridge, theta0, 3, {});
  REQUIRE(steps.size() == 1);
  REQUIRE(!steps.back().accepted);
  CHECK(same_bits(gather(*model, subset), before));
  CHECK(relative_error(eigen(gather(*model, subset)), eigen(before)) <= 1e-12);
}

TEST_CASE("what cannot be meant is refused in one clear line") {
  const Problem p;
  FastNtk squared = p.rules("mse");
  CHECK_THROWS_AS(squared.update("newton-shift"), UsageError);
  CHECK_THROWS_WITH(squared.update("newton-shift"),
                    Contains("'newton-shift' for the loss mse") && Contains("shift, solve, golatkar, golatkar-scaled"));
  CHECK_THROWS_WITH(squared.update("shfit"), Contains("'shfit'"));
  CHECK_THROWS_WITH(FastNtk(p.set, all, p.theta0, p.theta_star, find_loss("mse"), 1, 1),
                    Contains("nothing would be left: all 20 samples"));
  for (const Positions& wrong : {Positions{3, 2}, Positions{1, 1}, Positions{19, 20}, Positions{-1, 4}}) {
    CAPTURE(wrong[0], wrong[1]);
    CHECK_THROWS_WITH(FastNtk(p.set, wrong, p.theta0, p.theta_star, find_loss("mse"), 1, 1),
                      Contains("ascending positions in a set of 20 samples"));
  }
  CHECK_THROWS_WITH(p.rules("mse", 0, 1), Contains("must be positive and finite, got 0"));
  CHECK_THROWS_WITH(p.rules("mse", 1, std::nan("")), Contains("must be positive and finite"));
  const Tensor shorter = Tensor::zeros({P - 1}, DType::float64);
  CHECK_THROWS_WITH(FastNtk(p.set, forget, shorter, p.theta_star, find_loss("mse"), 1, 1),
                    Contains("for 12 parameters"));
}
