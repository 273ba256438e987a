// The optimum of the linearised model from rows in a file, against Newton's method on dense matrices.
#include <catch2/catch.hpp>

#include "engine/file.h"
#include "engine/parallel.h"
#include "engine/safetensors.h"
#include "engine/sha256.h"
#include "temporary_folder.h"
#include "unlearn/linear_optimum.h"
#include "unlearn/metrics.h"
#include "unlearn/small_models.h"

using namespace fastntk;

namespace {

constexpr int64_t n = 45, classes = 3, parameters = 11;

struct Problem {
  explicit Problem(double scale) {
    set.rows = combine(set.rows.to(DType::float64), scale - 1, set.rows.to(DType::float64)).to(DType::float32);
    SafeTensors file;
    file.tensors = {{"rows", set.rows}};
    file.save(folder / "rows");
    std::vector<std::string> hashes;
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < n; i++) hashes.push_back(sha256(bytes_of(set.rows.select(0, i)))), ids.push_back(100 + i);
    rows =
        std::make_unique<RowFile>(std::vector<RowFile::Part>{{folder / "rows", n}}, classes, parameters, hashes, ids);
  }
  LinearisedObjective objective(const std::string& loss) const {
    return {*rows, find_loss(loss), set.logits, set.labels.to_vector<int64_t>(), theta0, theta_star, ridge};
  }
  // Gradient and Hessian over the samples at `present`.
  std::pair<Eigen::VectorXd, Eigen::MatrixXd> derivatives(const Loss& loss, const Positions& present,
                                                          const Eigen::VectorXd& theta) const {
    Eigen::VectorXd g = ridge * (theta - eigen(theta0));
    Eigen::MatrixXd h = ridge * Eigen::MatrixXd::Identity(parameters, parameters);
    for (const int64_t i : present) {
      const Eigen::MatrixXd j = eigen_matrix(set.rows.select(0, i), classes);
      const Eigen::VectorXd f = eigen(set.logits.select(0, i)) + j * (theta - eigen(theta_star));
      const int64_t label = i % classes;
      Eigen::VectorXd slope(classes);
      Eigen::Matrix<double, classes, classes, Eigen::RowMajor> s;
      loss.gradient(f.data(), classes, label, slope.data());
      loss.curvature_factor(f.data(), classes, label, s.data());
      g += j.transpose() * slope;
      h += j.transpose() * (s * s.transpose()) * j;
    }
    return {g, h};
  }
  Eigen::VectorXd optimum(const Loss& loss, const Positions& present) const {
    Eigen::VectorXd theta = eigen(theta_star);
    for (int k = 0; k < 200; k++) {
      const auto [g, h] = derivatives(loss, present, theta);
      const Eigen::VectorXd step = h.ldlt().solve(g);
      theta -= std::min(1.0, 0.5 / step.norm()) * step;  // no farther than where the quadratic model is good
    }
    return theta;
  }

  TemporaryFolder folder;
  LinearisedSet set = random_set(n, classes, parameters, 21, DType::float64);
  Tensor theta0 = Random(22).normal_tensor({parameters}, DType::float64),
         theta_star = Random(23).normal_tensor({parameters}, DType::float64);
  double ridge = 0.7;
  std::unique_ptr<RowFile> rows;
};

}  // namespace

TEST_CASE("the optimum of the linearised model is that of Newton's method on dense matrices", "[optimum]") {
  for (const double scale : {1.0, 4.0})
    for (const char* const name : {"ce", "bce", "ce:1,2,1"}) {
      const Problem p(scale);
      const LinearisedObjective objective = p.objective(name);
      const NormalEquations all = normal_equations_at_optimum(objective);
      INFO(name << ", scale " << scale);
      const Eigen::VectorXd full = p.optimum(objective.loss, all_positions(n));
      CHECK(relative_error(eigen(all.reference), full) <= 1e-11);
      CHECK(norm(all.right_hand_side) <= 1e-10);
      const Eigen::MatrixXd h = p.derivatives(objective.loss, all_positions(n), full).second;
      CHECK(relative_error(eigen_matrix(all.matrix.dense(), parameters),
                           h - p.ridge * Eigen::MatrixXd::Identity(parameters, parameters)) <= 1e-10);

      // One sample less: chord steps with the factor of D are enough; a third less: they may not be.
      const Cholesky factor(all.matrix.clone(), p.ridge);
      const auto inverse = [&](const Tensor& x) { return factor.solve(x); };
      for (const int64_t left : {int64_t{1}, n / 3}) {
        Positions present;
        for (int64_t i = left; i < n; i++) present.push_back(i);
        const LinearOptimum best = linear_optimum(objective, present, all.reference, inverse);
        const Eigen::VectorXd expected = p.optimum(objective.loss, present);
        CHECK(best.gradient_norm <= 1e-8 * best.start_gradient_norm);
        const double error = (eigen(best.theta) - expected).norm() / (expected - eigen(p.theta0)).norm();
        CHECK(error <= 1e-8);
        CHECK(error <= 1.01 * best.distance_bound + 1e-14);
        CHECK(best.passes >= 1 + best.chord_steps + best.newton_steps);
      }
    }
}

TEST_CASE("far from the optimum Newton steps take over, and threads change no bit", "[optimum]") {
  const Problem p(6);
  const LinearisedObjective objective = p.objective("ce");
  // A preconditioner that is none.
  const auto identity = [](const Tensor& x) { return x; };
  std::vector<Tensor> found;
  const int threads = thread_count();
  for (const int count : {1, 3}) {
    set_thread_count(count);
    const LinearOptimum best = linear_optimum(objective, all_positions(n), p.theta0, identity);
    CHECK(best.newton_steps > 0);
    CHECK((eigen(best.theta) - p.optimum(objective.loss, all_positions(n))).norm() <= 1e-7);
    found.push_back(best.theta);
  }
  set_thread_count(threads);
  CHECK(same_bits(found[0], found[1]));
}

TEST_CASE("rows are compared with their hashes, and a quadratic loss is refused", "[optimum]") {
  const Problem p(1);
  CHECK_THROWS_WITH(linear_optimum(p.objective("mse"), {0}, p.theta0, [](const Tensor& x) { return x; }),
                    Catch::Contains("quadratic"));
  std::string text = read_file(p.folder / "rows");
  text.back() = static_cast<char>(text.back() ^ 1);
  p.folder.write("rows", text);
  CHECK_THROWS_WITH(p.rows->read({0, n - 1}), Catch::Contains("sample 144"));
  CHECK(p.rows->read({0}).extent(0) == 1);
}
