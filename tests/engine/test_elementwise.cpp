// Element-wise ops at the points that the op tests keep away from.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "engine/ops/activation.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/select.h"
#include "engine/tape.h"
#include "worse.h"

using namespace fastntk;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

// Every function with a kernel of its own, its exact value, where it is looked at, and the largest error in units of
// the machine precision, of the value or of what it is a difference of.
struct Function {
  const char* name;
  Variable (*function)(const Variable&);
  long double (*exact)(long double);
  double from, to, error;
  long double (*size)(long double);
};

const long double root_half = std::sqrt(0.5L), root_two_over_pi = std::sqrt(2 / std::acos(-1.0L));
long double sigmoid_of(long double x) { return 1 / (1 + std::exp(-x)); }
long double gelu_tanh_inner(long double x) { return 2 * root_two_over_pi * (x + 0.044715L * x * x * x); }
long double one(long double) { return 1; }

const Function functions[] = {
    {"exp", exp, std::exp, -87, 88, 2, std::exp},
    {"tanh", tanh, std::tanh, -12, 12, 2, std::tanh},
    {"erf", erf, std::erf, -6, 6, 2, std::erf},
    {"sigmoid", sigmoid, sigmoid_of, -80, 80, 4, sigmoid_of},
    {"silu", silu, [](long double x) { return x * sigmoid_of(x); }, -80, 80, 4,
     [](long double x) { return x == 0 ? 1 : x * sigmoid_of(x); }},
    {"softplus", [](const Variable& x) { return softplus(x, 1, infinity); },
     [](long double x) { return std::log1p(std::exp(x)); }, -80, 80, 4,
     [](long double x) { return std::log1p(std::exp(x)); }},
    {"gelu", [](const Variable& x) { return gelu(x); },
     [](long double x) { return x * 0.5L * std::erfc(-x * root_half); }, -9, 9, 64,
     [](long double x) { return x * 0.5L * std::erfc(-x * root_half); }},
    {"gelu_derivative", [](const Variable& x) { return gelu_derivative(x); },
     [](long double x) {
       return 0.5L * std::erfc(-x * root_half) + 0.5L * root_two_over_pi * x * std::exp(-0.5L * x * x);
     },
     -9, 9, 4, one},
    {"gelu, tanh", [](const Variable& x) { return gelu(x, GeluApproximation::tanh); },
     [](long double x) { return x * sigmoid_of(gelu_tanh_inner(x)); }, -9, 9, 6,
     [](long double x) { return std::max(1.0L, x); }},
    {"gelu_derivative, tanh", [](const Variable& x) { return gelu_derivative(x, GeluApproximation::tanh); },
     [](long double x) {
       const long double s = sigmoid_of(gelu_tanh_inner(x));
       return s + x * s * (1 - s) * 2 * root_two_over_pi * (1 + 3 * 0.044715L * x * x);
     },
     -9, 9, 6, one},
};

}  // namespace

TEST_CASE("functions with vectorised kernels are exact to a few units of the last place", "[ops]") {
  for (const Function& f : functions)
    for (const DType dtype : {DType::float32, DType::float64}) {
      const int64_t n = 20011;
      Tensor x({n}, DType::float64);
      for (int64_t i = 0; i < n; i++)
        x.mutable_data<double>()[i] = f.from + (f.to - f.from) * static_cast<double>(i) / static_cast<double>(n);
      x = x.to(dtype);
      const auto at = x.to(DType::float64).to_vector<double>();
      const auto y = f.function(x).value.to(DType::float64).to_vector<double>();
      const double unit = dtype == DType::float32 ? 0x1p-23 : 0x1p-52;
      double worst = 0;
      for (size_t i = 0; i < y.size(); i++)
        worst =
            test::worse(worst, static_cast<double>(std::abs(y[i] - f.exact(at[i])) / (std::abs(f.size(at[i])) * unit)));
      INFO(f.name << ", " << name_of(dtype));
      CHECK(worst <= f.error);
    }
}

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

TEST_CASE("maximum and minimum: a NaN wins, and equal values share the derivative") {
  const Tensor a = Tensor::from<double>({4}, {1, not_a_number, 2, 5}),
               b = Tensor::from<double>({4}, {3, 0, not_a_number, 5});
  const auto most = maximum(a, b).value.to_vector<double>(), least = minimum(a, b).value.to_vector<double>();
  CHECK((most[0] == 3 && std::isnan(most[1]) && std::isnan(most[2]) && most[3] == 5));
  CHECK((least[0] == 1 && std::isnan(least[1]) && std::isnan(least[2]) && least[3] == 5));
  Tape tape;
  const std::vector<Variable> leaves = {tape.leaf(a), tape.leaf(b)};
  const auto c = tape.vjp(maximum(leaves[0], leaves[1]), Tensor::full({4}, 6, DType::float64), leaves);
  CHECK(c[0].value.to_vector<double>()[0] == 0);
  CHECK(c[1].value.to_vector<double>()[0] == 6);
  CHECK(c[0].value.to_vector<double>()[3] == 3);
  CHECK(c[1].value.to_vector<double>()[3] == 3);
}

TEST_CASE("where takes nothing from the side that is not chosen, and masks of any type") {
  const Tensor a = Tensor::from<double>({3}, {1, not_a_number, infinity}),
               b = Tensor::from<double>({3}, {not_a_number, 2, 3});
  const std::vector<double> expected = {1, 2, 3};
  for (const DType type : {DType::uint8, DType::int64, DType::float32})
    CHECK(where(Tensor::from<double>({3}, {1, 0, 0}).to(type), a, b).value.to_vector<double>() == expected);
  CHECK(where(Tensor::from<double>({3}, {-2, 0, 0}), a, b).value.to_vector<double>() == expected);
}

TEST_CASE("clamp and abs at their kinks, powers at zero") {
  const auto derivative = [](auto&& f, double at) {
    Tape tape;
    const Variable x = tape.leaf(Tensor::from<double>({1}, {at}));
    const Variable c = tape.vjp(f(x), Tensor::full({1}, 1, DType::float64), {&x, 1})[0];
    return c.defined() ? c.value.item() : 0;
  };
  const auto cut = [](const Variable& x) { return clamp(x, -1, 2); };
  CHECK(derivative(cut, -1) == 1);
  CHECK(derivative(cut, 2) == 1);
  CHECK(derivative(cut, 2.001) == 0);
  CHECK(std::isnan(cut(Tensor::from<double>({1}, {not_a_number})).value.item()));
  CHECK(derivative([](const Variable& x) { return abs(x); }, 0) == 0);
  CHECK(derivative([](const Variable& x) { return pow(x, 0); }, 0) == 0);
  CHECK(derivative([](const Variable& x) { return pow(x, 1); }, 0) == 1);
  CHECK(derivative([](const Variable& x) { return pow(x, Variable(Tensor::zeros({1}, DType::float64))); }, 0) == 0);
  CHECK(derivative([](const Variable& x) { return pow(Variable(Tensor::zeros({1}, DType::float64)), x); }, 2) == 0);
  CHECK_THROWS_AS(clamp(Tensor::zeros({1}), 0, not_a_number), Error);
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
  for (int i = 0; i <= 472; i++) {  // to 87.64
    const float x = static_cast<float>(-87 + 0.37 * i);
    CHECK(exp(Tensor::full({19}, x)).value.to_vector<float>()[17] ==
          Approx(std::exp(static_cast<double>(x))).epsilon(3e-7));
    const float y = static_cast<float>(std::exp(static_cast<double>(x)));
    CHECK(std::abs(log(Tensor::full({19}, y)).value.to_vector<float>()[17] - std::log(static_cast<double>(y))) <
          3e-7 * std::max(1.0, std::abs(static_cast<double>(x))));
  }
}
