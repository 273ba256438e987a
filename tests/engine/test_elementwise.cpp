// Element-wise ops at the points that the op tests keep away from.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "engine/ops/elementwise.h"
#include "engine/tape.h"

using namespace fastntk;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("relu: zero has derivative zero, and a NaN stays one, at every place of a vector register") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const int64_t n = 37;
    for (int64_t at = 0; at < n; at++) {
      Tensor x = Tensor::full({n}, 2, dtype);
      x.slice(0, at, at + 1).fill(not_a_number);
      const auto y = relu(x).value.to(DType::float64).to_vector<double>();
      for (int64_t i = 0; i < n; i++)
        CHECK((i == at ? std::isnan(y[static_cast<size_t>(i)]) : y[static_cast<size_t>(i)] == 2));
    }
    Tape tape;
    const Variable x = tape.leaf(Tensor::from<double>({4}, {-1, -0.0, 0, 1}).to(dtype));
    const Variable y = relu(x);
    CHECK(y.value.to(DType::float64).to_vector<double>() == std::vector<double>{0, 0, 0, 1});
    CHECK(tape.vjp(y, Tensor::full({4}, 3, dtype), {&x, 1})[0].value.to(DType::float64).to_vector<double>() ==
          std::vector<double>{0, 0, 0, 3});
  }
}

TEST_CASE("where_positive: what is not greater than zero, NaN included, hides even an infinity") {
  const Tensor a = Tensor::from<double>({5}, {1, infinity, not_a_number, infinity, 5}),
               b = Tensor::from<double>({5}, {1, 0, -1, not_a_number, infinity});
  CHECK(where_positive(a, b).value.to_vector<double>() == std::vector<double>{1, 0, 0, 0, 5});
}

TEST_CASE("functions outside their range give what IEEE 754 says") {
  const Tensor x = Tensor::from<double>({3}, {0, -1, infinity});
  const auto logarithm = log(x).value.to_vector<double>(), root = sqrt(x).value.to_vector<double>();
  CHECK((logarithm[0] == -infinity && std::isnan(logarithm[1]) && logarithm[2] == infinity));
  CHECK((root[0] == 0 && std::isnan(root[1]) && root[2] == infinity));
  CHECK(exp(Tensor::from<double>({2}, {-infinity, 1000})).value.to_vector<double>() ==
        std::vector<double>{0, infinity});
  CHECK(divide(Tensor::scalar(1), Tensor::scalar(0)).value.item() == infinity);
}

TEST_CASE("exp and log are accurate over their whole range") {
  for (double v = -87; v <= 88; v += 0.37) {
    const float x = static_cast<float>(v);
    CHECK(exp(Tensor::full({19}, x)).value.to_vector<float>()[17] ==
          Approx(std::exp(static_cast<double>(x))).epsilon(3e-7));
    const float y = static_cast<float>(std::exp(static_cast<double>(x)));
    CHECK(std::abs(log(Tensor::full({19}, y)).value.to_vector<float>()[17] - std::log(static_cast<double>(y))) <
          3e-7 * std::max(1.0, std::abs(v)));
  }
}
