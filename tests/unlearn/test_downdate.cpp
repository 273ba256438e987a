// Samples that leave and arrive: after any sequence of requests the system is that of the samples present.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "unlearn/downdate.h"
#include "unlearn/small_models.h"

using namespace fastntk;

namespace {

constexpr int64_t samples = 40, classes = 3, parameters = 23;
constexpr double ridge = 0.5;

Tensor rows_of(const LinearisedSet& set, const std::vector<int64_t>& positions) {
  Tensor out({static_cast<int64_t>(positions.size()), classes, parameters}, set.rows.dtype());
  for (size_t i = 0; i < positions.size(); i++)
    out.select(0, static_cast<int64_t>(i)).copy_from(set.rows.select(0, positions[i]));
  return out;
}

SymmetricMatrix gram_of(const Tensor& rows) {
  GramAccumulator gram(rows.extent(-1), 0);
  gram.add(rows);
  return std::move(gram).finish().matrix;
}

// (J_rᵀJ_r + ρI)⁻¹ b from the rows present alone, in another way.
Eigen::VectorXd expected(const LinearisedSet& set, const std::set<int64_t>& present, const Tensor& b) {
  Eigen::MatrixXd a = ridge * Eigen::MatrixXd::Identity(parameters, parameters);
  for (const int64_t i : present) {
    const Eigen::MatrixXd j = eigen_matrix(set.rows.select(0, i), classes);
    a += j.transpose() * j;
  }
  return a.ldlt().solve(eigen(b));
}

}  // namespace

TEST_CASE("a sequence of requests equals a recomputation from the samples present", "[downdate]") {
  for (const DType dtype : {DType::float64, DType::float32})
    for (uint64_t seed = 0; seed < 100; seed++) {
      const LinearisedSet set = random_set(samples, classes, parameters, 7, dtype);
      const Tensor b = Random(seed, 3).normal_tensor({parameters}, DType::float64);
      const std::vector<double> draws = Random(seed, 4).normal_tensor({64}, DType::float64).to_vector<double>();
      std::set<int64_t> present;
      for (int64_t i = 0; i < samples; i++) present.insert(i);
      DowndatedSystem system(gram_of(set.rows), ridge, static_cast<int64_t>(seed % 4) * 10);
      for (int request = 0; request < 8; request++) {
        // Batches of up to five; a sample that is away comes back.
        std::vector<int64_t> leaving, arriving;
        for (int k = 0; k <= (request + static_cast<int>(seed)) % 5; k++) {
          const int draw = request * 5 + k;
          const int64_t i = static_cast<int64_t>(1e6 * std::abs(draws[static_cast<size_t>(draw)])) % samples;
          if (present.erase(i))
            leaving.push_back(i);
          else if (std::find(leaving.begin(), leaving.end(), i) == leaving.end() && present.insert(i).second)
            arriving.push_back(i);
        }
        // One drawn twice may have arrived and left again within the batch; both are then in the lists.
        if (!arriving.empty()) system.add(rows_of(set, arriving));
        if (!leaving.empty()) system.remove(rows_of(set, leaving));
        const Refinement r = system.solve(b);
        INFO("seed " << seed << ", request " << request);
        CHECK(r.relative_residual <= 1e-13);
        CHECK(relative_error(eigen(r.x), expected(set, present, b)) <= 1e-11);
      }
    }
}

TEST_CASE("requests one by one equal one request for their union, and everything may leave", "[downdate]") {
  const LinearisedSet set = random_set(samples, classes, parameters, 8);
  const Tensor b = Random(1, 3).normal_tensor({parameters}, DType::float64);
  DowndatedSystem one_by_one(gram_of(set.rows), ridge, 12), at_once(gram_of(set.rows), ridge, 1000);
  for (int64_t i = 0; i < 10; i++) one_by_one.remove(set.rows.select(0, i));
  at_once.remove(set.rows.slice(0, 0, 10));
  CHECK(one_by_one.factorisations() > 1);
  CHECK(at_once.factorisations() == 1);
  CHECK(at_once.pending_rows() == 10 * classes);
  CHECK(relative_error(eigen(one_by_one.solve(b).x), eigen(at_once.solve(b).x)) <= 1e-12);
  at_once.remove(set.rows.slice(0, 10, samples));
  CHECK(relative_error(eigen(at_once.solve(b).x), eigen(b) / ridge) <= 1e-11);
}

TEST_CASE("a system that was kept in parts goes on with the same bits", "[downdate]") {
  const LinearisedSet set = random_set(samples, classes, parameters, 10, DType::float32);
  const Tensor b = Random(2, 3).normal_tensor({parameters}, DType::float64);
  DowndatedSystem system(gram_of(set.rows), ridge, 30);
  const auto kept = [&] {
    return DowndatedSystem(system.matrix().clone(),
                           Cholesky::from_factor(system.factor().factor().clone(), ridge, system.factor().one_norm()),
                           system.condition(), 30);
  };
  system.remove(set.rows.slice(0, 0, 3));
  system.remove(set.rows.slice(0, 3, 5));
  DowndatedSystem other = kept();
  other.resume(set.rows.slice(0, 0, 5).to(DType::float64).reshape({15, parameters}), system.solved_rows());
  CHECK(other.condition_bound() == system.condition_bound());
  for (DowndatedSystem* const s : {&system, &other}) {
    s->remove(set.rows.slice(0, 5, 6));
    CHECK(s->pending_rows() == 18);
  }
  CHECK(same_bits(system.solve(b).x, other.solve(b).x));
  for (DowndatedSystem* const s : {&system, &other}) s->compact();
  CHECK(system.pending_rows() == 0);
  CHECK(other.factorisations() == 1);  // its first factor was given
  CHECK(same_bits(system.solve(b).x, other.solve(b).x));
  CHECK(relative_error(eigen(system.solve(b).x), expected(
                                                     set,
                                                     [] {
                                                       std::set<int64_t> present;
                                                       for (int64_t i = 6; i < samples; i++) present.insert(i);
                                                       return present;
                                                     }(),
                                                     b)) <= 1e-11);
}

TEST_CASE("the system is factored anew when what leaves carried a direction almost alone", "[downdate]") {
  // A row of length 1e5 in a direction that ρ = 1e-3 alone holds afterwards: the eigenvalue is ρ / (1e10 + ρ) = 1e-13.
  Tensor rows = Tensor::zeros({2, 1, 2}, DType::float64);
  rows.mutable_data<double>()[0] = 1e5, rows.mutable_data<double>()[3] = 1;
  DowndatedSystem system(gram_of(rows), 1e-3, 100);
  system.remove(rows.select(0, 0));
  CHECK(system.factorisations() == 2);
  CHECK(system.pending_rows() == 0);
  system.remove(rows.select(0, 1));  // 1e-3 / (1 + 1e-3) is no reason to
  CHECK(system.factorisations() == 2);
  CHECK(system.smallest_eigenvalue() == Approx(1e-3 / 1.001));
}

TEST_CASE("a downdate refuses what it cannot mean", "[downdate]") {
  const LinearisedSet set = random_set(samples, classes, parameters, 9);
  CHECK_THROWS_WITH(DowndatedSystem(gram_of(set.rows), 0, 1), Catch::Contains("ρ must be positive"));
  DowndatedSystem system(gram_of(set.rows), ridge, 30);
  CHECK_THROWS_WITH(system.remove(Tensor::zeros({2, parameters + 1})), Catch::Contains("[..., 23]"));
  CHECK_THROWS_WITH(system.solve(Tensor::zeros({parameters})), Catch::Contains("float64 [23]"));
  // Rows that are not in A: what is left is not positive definite.
  CHECK_THROWS_WITH(system.remove(Tensor::full({1, parameters}, 1e3, DType::float64)),
                    Catch::Contains("not positive definite"));
}
