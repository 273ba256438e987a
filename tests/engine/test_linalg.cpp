// Tiled linear algebra against Eigen in float64, and its promise of equal bits.
#include <Eigen/Dense>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "engine/blas.h"
#include "engine/cholesky.h"
#include "engine/gram.h"
#include "engine/parallel.h"
#include "temporary_folder.h"
#include "test_device.h"

using namespace fastntk;
using test::test_device;

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double epsilon = std::numeric_limits<double>::epsilon();

Matrix random_matrix(int64_t rows, int64_t columns, unsigned seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  Matrix m(rows, columns);
  for (int64_t i = 0; i < rows * columns; i++) m.data()[i] = normal(engine);
  return m;
}

Tensor tensor_of(const Matrix& m, DType dtype = DType::float64) {
  return Tensor::from<double>({m.rows(), m.cols()}, std::span(m.data(), static_cast<size_t>(m.size()))).to(dtype);
}

Matrix matrix_of(const Tensor& t) {
  const Tensor values = t.to(DType::float64).contiguous();
  const int64_t columns = t.rank() == 2 ? t.extent(1) : 1;
  return Eigen::Map<const Matrix>(values.data<double>(), t.extent(0), columns);
}

// Random symmetric with eigenvalues from 1 down to 1/condition, evenly in the logarithm.
Matrix random_definite(int64_t n, double condition, unsigned seed) {
  const Matrix q = Eigen::HouseholderQR<Matrix>(random_matrix(n, n, seed)).householderQ();
  Eigen::VectorXd values(n);
  for (int64_t i = 0; i < n; i++)
    values[i] = std::pow(condition, -static_cast<double>(i) / static_cast<double>(std::max<int64_t>(1, n - 1)));
  const Matrix m = q * values.asDiagonal() * q.transpose();
  return (m + m.transpose()) / 2;
}

double relative_error(const Matrix& got, const Matrix& expected) {
  return (got - expected).norm() / std::max(expected.norm(), 1e-300);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.contiguous(), y = b.contiguous();
  return x.shape() == y.shape() && x.dtype() == y.dtype() &&
         std::memcmp(x.data<double>(), y.data<double>(), x.bytes()) == 0;
}

// Runs `make` with 1, 2 and 3 threads and checks that the results are the same; returns the last.
template <class Make>
Tensor for_all_threads(Make&& make) {
  const int before = thread_count();
  set_thread_count(1);
  Tensor expected = make();
  for (const int threads : {2, 3}) {
    set_thread_count(threads);
    CHECK(same_bits(make(), expected));
  }
  set_thread_count(before);
  return expected;
}

LinearOperator product_with(const SymmetricMatrix& a, double ridge) {
  return [&a, ridge](const Tensor& x) {
    const Tensor y = a.multiply(x);
    return tensor_of(matrix_of(y) + ridge * matrix_of(x)).reshape(x.shape());
  };
}

constexpr int64_t sizes[] = {1, 7, 100, 300, 777};

}  // namespace

TEST_CASE("the BLAS says what it is", "[linalg]") {
  CHECK(blas_version().rfind("OpenBLAS ", 0) == 0);
  CHECK_FALSE(blas_kernel_set().empty());
  CHECK(measured_sgemm_gflops(1) > 0);
  CHECK(measured_sgemm_gflops(2) > 0);
  CHECK_THROWS_AS(measured_sgemm_gflops(0), UsageError);
}

TEST_CASE("tiles cover a matrix", "[linalg]") {
  for (const int64_t n : {0, 1, 8, 256, 257, 777, 2218, 9600}) {
    const Tiling t = tiling_of(n);
    CHECK(t.padded() >= n);
    CHECK(t.padded() - n < 8 * std::max<int64_t>(1, t.count));
    CHECK((t.extent % 8 == 0 && t.extent <= Tiling::largest));
  }
  int64_t index = 0;
  for (int64_t row = 0; row < 50; row++)
    for (int64_t column = 0; column <= row; column++, index++) {
      const LowerTile at(index);
      REQUIRE((at.row == row && at.column == column));
    }
}

TEST_CASE("symmetric matrices keep, multiply and measure like dense ones", "[linalg]") {
  for (const int64_t n : sizes) {
    const Matrix a = random_definite(n, 100, 1) - 0.3 * Matrix::Identity(n, n), x = random_matrix(n, 11, 2);
    SymmetricMatrix s = SymmetricMatrix::from(tensor_of(a));
    CHECK(matrix_of(s.dense()) == a);
    CHECK(s.one_norm() == Approx(a.cwiseAbs().colwise().sum().maxCoeff()).epsilon(1e-14));
    const Tensor y = for_all_threads([&] { return s.multiply(tensor_of(x)); });
    CHECK(relative_error(matrix_of(y), a * x) < 1e-14);
    // A column alone has the bits it has among others, wherever it stands.
    for (const int64_t c : {0, 6, 10})
      CHECK(same_bits(s.multiply(tensor_of(x.col(c)).reshape({n})), y.slice(1, c, c + 1).reshape({n})));
    const Eigen::VectorXd expected = Eigen::SelfAdjointEigenSolver<Matrix>(a, Eigen::EigenvaluesOnly).eigenvalues();
    CHECK(relative_error(matrix_of(s.eigenvalues()), expected) < 1e-13);

    SymmetricMatrix other = s.clone();
    other.add_scaled(-0.5, s);
    other.add_to_diagonal(2);
    CHECK(relative_error(matrix_of(other.dense()), 0.5 * a + 2 * Matrix::Identity(n, n)) < 1e-15);
    CHECK(matrix_of(s.dense()) == a);
  }
  CHECK_THROWS_WITH(SymmetricMatrix(3).add_scaled(1, SymmetricMatrix(4)),
                    Catch::Contains("size 3") && Catch::Contains("size 4"));
  CHECK_THROWS_WITH(SymmetricMatrix::from(Tensor::zeros({2, 3}, DType::float64)), Catch::Contains("[n, n]"));
}

TEST_CASE("the primal Gram matrix equals JᵀJ, in whatever pieces the rows arrive", "[linalg]") {
  for (const DType dtype : {DType::float32, DType::float64})
    for (const auto& size : {std::pair{1, 1}, {3, 7}, {600, 100}, {256, 300}, {700, 777}, {0, 5}}) {
      const int64_t rows = size.first, columns = size.second;
      const Tensor j = tensor_of(random_matrix(rows, columns, 3), dtype),
                   r = tensor_of(random_matrix(rows, 2, 4), dtype);
      Tensor right_hand_side;
      const auto accumulate = [&](int64_t piece) {
        GramAccumulator gram(columns, 2);
        for (int64_t from = 0; from < rows; from += piece) {
          const int64_t to = std::min<int64_t>(rows, from + piece);
          gram.add(j.slice(0, from, to), r.slice(0, from, to));
        }
        const Gram done = std::move(gram).finish();
        CHECK(done.rows == rows);
        right_hand_side = done.right_hand_side;
        return done.matrix.dense();
      };
      const Tensor whole = for_all_threads([&] { return accumulate(1000); });
      const Tensor whole_right = right_hand_side;
      CHECK(relative_error(matrix_of(whole), matrix_of(j).transpose() * matrix_of(j)) < 1e-13);
      CHECK(relative_error(matrix_of(whole_right), matrix_of(j).transpose() * matrix_of(r)) < 1e-13);
      for (const int64_t piece : {1, 10, 255, 256, 300}) {
        CHECK(same_bits(accumulate(piece), whole));
        CHECK(same_bits(right_hand_side, whole_right));
      }
    }
}

TEST_CASE("Gram accumulation takes samples by classes and strided rows, and refuses what does not fit", "[linalg]") {
  const Tensor j = tensor_of(random_matrix(12, 9, 5)), r = tensor_of(random_matrix(12, 1, 6));
  GramAccumulator flat(9), stacked(9), strided(9);
  flat.add(j, r);
  stacked.add(j.reshape({4, 3, 9}), r.reshape({4, 3}));
  strided.add(j.transpose(0, 1).contiguous().transpose(0, 1), r);
  const Gram expected = std::move(flat).finish();
  for (GramAccumulator* g : {&stacked, &strided}) {
    const Gram got = std::move(*g).finish();
    CHECK(same_bits(got.matrix.dense(), expected.matrix.dense()));
    CHECK(same_bits(got.right_hand_side, expected.right_hand_side));
  }
  GramAccumulator gram(9);
  CHECK_THROWS_WITH(gram.add(tensor_of(random_matrix(2, 8, 1)), r.slice(0, 0, 2)), Catch::Contains("rows of 9"));
  CHECK_THROWS_WITH(gram.add(j, r.slice(0, 0, 5)), Catch::Contains("12 rows"));
  CHECK_THROWS_WITH(gram.add(j), Catch::Contains("none"));
  CHECK_THROWS_WITH(gram.add(Tensor::zeros({2, 9}, DType::int64)), Catch::Contains("int64"));
  GramAccumulator none(9, 0);
  none.add(j);
  const Gram without = std::move(none).finish();
  CHECK(without.right_hand_side.shape() == Shape{9, 0});
  // Rows taken off a matrix in its own memory.
  GramAccumulator less(without.matrix.clone(), -1);
  less.add(j.slice(0, 0, 5));
  const Matrix left = matrix_of(j.slice(0, 5, 12));
  const Gram rest = std::move(less).finish();
  CHECK(relative_error(matrix_of(rest.matrix.dense()), left.transpose() * left) < 1e-14);
}

TEST_CASE("a NaN or infinity is named, not accumulated", "[linalg]") {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    Matrix j = random_matrix(300, 40, 7);
    j(270, 33) = bad;
    for (const DType dtype : {DType::float32, DType::float64}) {
      GramAccumulator gram(40, 0);
      CHECK_THROWS_WITH(gram.add(tensor_of(j, dtype)), Catch::Contains("row 270, column 33"));
      CHECK_THROWS_WITH(dual_gram(tensor_of(j, dtype)), Catch::Contains("row 270, column 33"));
    }
    GramAccumulator gram(40);
    CHECK_THROWS_WITH(gram.add(tensor_of(random_matrix(1, 40, 1)), Tensor::full({1}, bad)),
                      Catch::Contains("residual of row 0"));
    Matrix a = random_definite(300, 10, 8);
    a(280, 3) = a(3, 280) = bad;
    CHECK_THROWS_WITH(Cholesky(SymmetricMatrix::from(tensor_of(a))), Catch::Contains("column 3"));
    CHECK_THROWS_WITH(SymmetricMatrix::from(tensor_of(a)).eigenvalues(), Catch::Contains("column 3"));
  }
}

TEST_CASE("dual Gram matrices equal J Jᵀ", "[linalg]") {
  for (const DType dtype : {DType::float32, DType::float64})
    for (const auto& [m, n, columns] : {std::tuple{1, 1, 1}, {7, 5, 300}, {300, 100, 70}, {513, 777, 256}, {4, 3, 0}}) {
      const Tensor a = tensor_of(random_matrix(m, columns, 9), dtype),
                   b = tensor_of(random_matrix(n, columns, 10), dtype);
      const Tensor symmetric = for_all_threads([&] { return dual_gram(a).dense(); });
      const Tensor cross = for_all_threads([&] { return dual_gram(a, b); });
      CHECK(relative_error(matrix_of(symmetric), matrix_of(a) * matrix_of(a).transpose()) < 1e-13);
      CHECK(relative_error(matrix_of(cross), matrix_of(a) * matrix_of(b).transpose()) < 1e-13);
    }
  const Tensor j = tensor_of(random_matrix(12, 9, 11));
  CHECK(same_bits(dual_gram(j.reshape({4, 3, 9})).dense(), dual_gram(j).dense()));
  CHECK_THROWS_WITH(dual_gram(j, tensor_of(random_matrix(2, 8, 1))), Catch::Contains("rows of one length"));
}

TEST_CASE("Cholesky solves as Eigen does", "[linalg]") {
  for (const int64_t n : sizes)
    for (const double condition : {10.0, 1e10}) {
      const double ridge = condition > 1e6 ? 0 : 0.25;
      const Matrix a = random_definite(n, condition, 12), b = random_matrix(n, 19, 13);
      const Matrix full = a + ridge * Matrix::Identity(n, n);
      const SymmetricMatrix s = SymmetricMatrix::from(tensor_of(a));
      const Tensor x = for_all_threads([&] { return Cholesky(s.clone(), ridge).solve(tensor_of(b)); });
      CHECK(same_bits(s.dense(), tensor_of(a)));
      const Matrix solution = matrix_of(x);
      // Backward stable: the residual is rounding times ‖A‖ ‖x‖, whatever the condition.
      CHECK((b - full * solution).norm() < 50 * epsilon * full.norm() * solution.norm());
      const double bound = 50 * epsilon * (n == 1 ? 1 : condition);
      CHECK(relative_error(solution, full.llt().solve(b)) < bound);
      CHECK(relative_error(solution, full.partialPivLu().solve(b)) < bound);

      const Cholesky factor(s.clone(), ridge);
      for (const int64_t c : {0, 7, 18})
        CHECK(same_bits(factor.solve(tensor_of(b.col(c)).reshape({n})), x.slice(1, c, c + 1).reshape({n})));

      const Refinement refined = refine(factor, product_with(s, ridge), tensor_of(b));
      CHECK(refined.relative_residual <= 4 * (b - full * solution).norm() / b.norm() + 1e-15);
      CHECK(relative_error(matrix_of(refined.x), solution) < 2 * bound);
      if (condition == 10) CHECK(refined.relative_residual < 1e-14);
    }
}

TEST_CASE("refinement repairs a factor of a slightly different matrix", "[linalg]") {
  const int64_t n = 300;
  const Matrix a = random_definite(n, 1e4, 14), b = random_matrix(n, 3, 15);
  const SymmetricMatrix s = SymmetricMatrix::from(tensor_of(a));
  const Cholesky nearby(s.clone(), 1e-5);
  const Refinement one = refine(nearby, product_with(s, 0), tensor_of(b), 1e-14, 1);
  const Refinement all = refine(nearby, product_with(s, 0), tensor_of(b), 1e-9, 50);
  CHECK(one.steps == 1);
  CHECK(one.relative_residual > 1e-8);
  CHECK(all.steps > 1);
  CHECK(all.relative_residual <= 1e-9);
  const Matrix residual = b - a * matrix_of(all.x);
  const double truth = residual.colwise().norm().cwiseQuotient(b.colwise().norm()).maxCoeff();
  CHECK(all.relative_residual / truth == Approx(1).epsilon(0.01));
  const Refinement zero = refine(nearby, product_with(s, 0), Tensor::zeros({n}, DType::float64));
  CHECK((zero.relative_residual == 0 && zero.steps == 0));
  CHECK(matrix_of(zero.x).norm() == 0);
}

TEST_CASE("the condition estimate is near the truth", "[linalg]") {
  CHECK(Cholesky(SymmetricMatrix(0)).condition_estimate() == 1);
  for (const int64_t n : sizes)
    for (const double condition : {1e3, 1e10}) {
      const Matrix a = random_definite(n, condition, 16);
      const Matrix inverse = a.llt().solve(Matrix::Identity(n, n));
      const double truth = a.cwiseAbs().colwise().sum().maxCoeff() * inverse.cwiseAbs().colwise().sum().maxCoeff();
      const double estimate = Cholesky(SymmetricMatrix::from(tensor_of(a))).condition_estimate();
      CHECK(estimate > truth / 3);
      CHECK(estimate < truth * 1.001);
    }
}

TEST_CASE("what is not positive definite is refused with the pivot and the ridge", "[linalg]") {
  for (const int64_t n : {7, 300, 777}) {
    Matrix a = Matrix::Identity(n, n);
    a(n - 2, n - 2) = -1;
    for_all_threads([&] {
      CHECK_THROWS_WITH(Cholesky(SymmetricMatrix::from(tensor_of(a)), 0.5),
                        Catch::Contains(fmt::format("pivot {} ", n - 1)) && Catch::Contains("ρ = 0.5"));
      return Tensor::scalar(0, DType::float64);
    });
    CHECK_NOTHROW(Cholesky(SymmetricMatrix::from(tensor_of(a)), 1.5));
  }
  CHECK_THROWS_AS(Cholesky(SymmetricMatrix(4), -1.0), Error);
  CHECK_THROWS_WITH(Cholesky(SymmetricMatrix(4)), Catch::Contains("pivot 1 "));
}

TEST_CASE("size zero is a size", "[linalg]") {
  GramAccumulator gram(0);
  gram.add(Tensor::zeros({3, 0}), Tensor::zeros({3}));
  Gram done = std::move(gram).finish();
  CHECK(done.rows == 3);
  CHECK(done.matrix.size() == 0);
  const Cholesky factor(std::move(done.matrix), 1);
  CHECK(factor.solve(Tensor::zeros({0}, DType::float64)).elements() == 0);
  CHECK(SymmetricMatrix(0).eigenvalues().elements() == 0);
  CHECK(SymmetricMatrix(0).multiply(Tensor::zeros({0, 3}, DType::float64)).shape() == Shape{0, 3});
  CHECK(dual_gram(Tensor::zeros({0, 5})).size() == 0);
  CHECK(dual_gram(Tensor::zeros({0, 5}), Tensor::zeros({2, 5})).shape() == Shape{0, 2});
}

TEST_CASE("a factor on a device solves there as that of the host does, and names the same pivot", "[device]") {
  for (const int64_t n : {1, 7, 70, 300}) {
    const Matrix a = random_definite(n, 1e3, 11);
    const Cholesky here(SymmetricMatrix::from(tensor_of(a)), 0.1),
        there(SymmetricMatrix::from(tensor_of(a)), 0.1, test_device());
    CHECK(there.one_norm() == here.one_norm());
    const Tensor b = tensor_of(random_matrix(n, 3, 12));
    CHECK(relative_error(matrix_of(there.solve(b)), matrix_of(here.solve(b))) <= 1e-12);
    const Tensor first = b.select(1, 0);  // one column, not contiguous
    CHECK(there.solve(first).shape() == Shape{n});
    CHECK(relative_error(matrix_of(there.solve(first).reshape({n, 1})),
                         matrix_of(here.solve(first.contiguous()).reshape({n, 1}))) <= 1e-12);
    CHECK(there.condition_estimate() == Approx(here.condition_estimate()));
    CHECK(there.size() == n);
    CHECK_THROWS_WITH(there.solve(Tensor::zeros({n + 1}, DType::float64)), Catch::Contains("Cholesky::solve needs"));
    CHECK_THROWS_WITH(there.factor(), Catch::Contains(fmt::format("is on the device {}", name_of(test_device()))));
  }
  Matrix indefinite = Matrix::Identity(9, 9);
  indefinite(4, 4) = -1;
  CHECK_THROWS_WITH(Cholesky(SymmetricMatrix::from(tensor_of(indefinite)), 0, test_device()),
                    Catch::Contains("pivot 5 is not positive"));
}

TEST_CASE("rows are added on a device, those of the host as well, also after an interruption", "[device]") {
  const int64_t m = 2500, P = GENERATE(33, 1100), R = 2;
  const Matrix j = random_matrix(m, P, 21), r = random_matrix(m, R, 22);
  GramAccumulator accumulator(P, R, test_device());
  const auto part = [](const Matrix& x, int64_t from, int64_t to) { return tensor_of(x.middleRows(from, to - from)); };
  accumulator.add(part(j, 0, 2100).to(test_device()), part(r, 0, 2100));
  accumulator.add(part(j, 2100, 2110), part(r, 2100, 2110));
  const auto saved = [](const GramAccumulator& sums) {
    std::vector<std::byte> out;
    sums.save_state([&](std::span<const std::byte> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); });
    CHECK(out.size() == sums.state_bytes());
    return out;
  };
  const auto reader = [](const std::vector<std::byte>& state) {
    return [&state, at = size_t{0}](std::span<std::byte> bytes) mutable {
      REQUIRE(at + bytes.size() <= state.size());
      std::copy_n(state.begin() + static_cast<std::ptrdiff_t>(at), bytes.size(), bytes.begin());
      at += bytes.size();
    };
  };
  const std::vector<std::byte> state = saved(accumulator);
  const auto last = [&](GramAccumulator sums) {
    sums.add(part(j, 2110, m).to(test_device()), part(r, 2110, m));
    return std::move(sums).finish();
  };
  GramAccumulator resumed(P, R, test_device());
  resumed.load_state(reader(state));
  const Gram gram = last(std::move(accumulator)), again = last(std::move(resumed));
  CHECK(again.rows == m);
  CHECK(again.matrix.dense().to_vector<double>() == gram.matrix.dense().to_vector<double>());
  CHECK(again.right_hand_side.to_vector<double>() == gram.right_hand_side.to_vector<double>());
  CHECK(gram.rows == m);
  CHECK(relative_error(matrix_of(gram.matrix.dense()), j.transpose() * j) <= 1e-13);
  CHECK(relative_error(matrix_of(gram.right_hand_side), j.transpose() * r) <= 1e-13);

  // The sum of what two have added, one of them by way of its bytes. On the host blocks end with rows that do not fill
  // them.
  for (const Device device : {Device::cpu, test_device()}) {
    const auto sum_of = [&](int64_t from, int64_t to) {
      GramAccumulator sums(P, R, device);
      sums.add(part(j, from, to), part(r, from, to));
      return sums;
    };
    GramAccumulator total = sum_of(0, 700), other = sum_of(700, m);
    if (device == Device::cpu) {
      const std::vector<std::byte> open = saved(other);
      CHECK_THROWS_WITH(total.add_state(reader(open)), Catch::Contains("not closed cannot be added"));
    }
    other.close_block();
    const std::vector<std::byte> closed = saved(other);
    total.add_state(reader(closed));
    const Gram both = std::move(total).finish();
    CHECK(both.rows == m);
    CHECK(relative_error(matrix_of(both.matrix.dense()), j.transpose() * j) <= 1e-13);
    CHECK(relative_error(matrix_of(both.right_hand_side), j.transpose() * r) <= 1e-13);
  }

  Matrix broken = j.topRows(3);
  broken(2, 5) = std::numeric_limits<double>::quiet_NaN();
  GramAccumulator other(P, 0, test_device());
  other.add(part(j, 0, 4).to(test_device()));
  CHECK_THROWS_WITH(other.add(tensor_of(broken).to(test_device())), Catch::Contains("row 6, column 5 of the Jacobian"));
  CHECK_THROWS_WITH(GramAccumulator(P, 0).add(part(j, 0, 4).to(test_device())),
                    Catch::Contains(fmt::format("on the device cpu was given rows of {}", name_of(test_device()))));
}
