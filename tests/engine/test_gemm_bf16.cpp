// Products in bfloat16 against plain loops over rounded numbers, and what linear layers make of the setting.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/cpu/gemm_bf16.h"
#include "engine/ops/linear.h"
#include "engine/parallel.h"
#include "engine/precision.h"
#include "engine/random.h"
#include "worse.h"

using namespace fastntk;

namespace {

// To the nearest number of 8 bits, by arithmetic and not by bits.
double rounded(float x) {
  if (x == 0) return 0;
  int exponent = 0;
  const double mantissa = std::frexp(static_cast<double>(x), &exponent);
  return std::ldexp(std::nearbyint(mantissa * 256) / 256, exponent);
}

struct Bf16 {
  Bf16() { set_linear_precision(Precision::bf16); }
  ~Bf16() { set_linear_precision(Precision::float32); }
};

// Whether there is something to test; where not, that asking for it is refused.
bool possible() {
  if (cpu::has_bf16()) return true;
  CHECK_THROWS_WITH(set_linear_precision(Precision::bf16), Catch::Contains("AVX512_BF16"));
  CHECK(linear_precision() == Precision::float32);
  return false;
}

}  // namespace

TEST_CASE("a product in bf16 is that of the rounded operands, with sums in float32", "[bf16]") {
  if (!possible()) return;
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                       {1, 33, 7},
                                                                       {13, 16, 5},
                                                                       {12, 48, 256},
                                                                       {25, 17, 257},
                                                                       {3, 100, 1700},
                                                                       {300, 5, 20},
                                                                       {600, 130, 514}}) {
        CAPTURE(transpose_a, transpose_b, m, n, k);
        const int64_t lda = (transpose_a ? m : k) + 3, ldb = (transpose_b ? k : n) + 1, ldc = n + 2;
        const auto a = Random(1).normal_tensor({transpose_a ? k : m, lda}).to_vector<float>(),
                   b = Random(2).normal_tensor({transpose_b ? n : k, ldb}).to_vector<float>();
        std::vector<float> c(static_cast<size_t>(m * ldc), 7);
        const cpu::Bf16Matrix packed(transpose_b, k, n, b.data(), ldb);
        packed.multiply(transpose_a, m, a.data(), lda, c.data(), ldc);
        double worst = 0;
        bool untouched = true;
        for (int64_t i = 0; i < m; i++) {
          for (int64_t j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (int64_t l = 0; l < k; l++) {
              const double term = rounded(a[static_cast<size_t>(transpose_a ? l * lda + i : i * lda + l)]) *
                                  rounded(b[static_cast<size_t>(transpose_b ? j * ldb + l : l * ldb + j)]);
              sum += term, size += std::fabs(term);
            }
            worst = test::worse(worst, std::fabs(c[static_cast<size_t>(i * ldc + j)] - sum) / (size + 1e-30));
          }
          for (int64_t j = n; j < ldc; j++) untouched = untouched && c[static_cast<size_t>(i * ldc + j)] == 7;
        }
        CHECK(worst <= 1e-6 * std::sqrt(static_cast<double>(k)));
        CHECK(untouched);
        // A row alone, and another number of threads: the same bits.
        std::vector<float> row(static_cast<size_t>(n));
        packed.multiply(transpose_a, 1, a.data() + (m - 1) * (transpose_a ? 1 : lda), lda, row.data(), n);
        CHECK(std::memcmp(row.data(), c.data() + (m - 1) * ldc, static_cast<size_t>(n) * sizeof(float)) == 0);
        const int threads = thread_count();
        set_thread_count(1);
        std::vector<float> again = c;
        packed.multiply(transpose_a, m, a.data(), lda, again.data(), ldc);
        set_thread_count(threads);
        CHECK(again == c);
      }
}

TEST_CASE("linear layers multiply in bf16 forwards and backwards where it is asked for", "[bf16]") {
  if (!possible()) return;
  const Tensor x = Random(3).normal_tensor({4, 70, 96}), w = Random(4).normal_tensor({1, 128, 96});
  const auto product = [&](const Tensor& weight) {
    return linear(Variable(x), Variable(weight)).value.to(DType::float64).to_vector<double>();
  };
  const auto full = product(w);
  std::vector<double> low;
  {
    const Bf16 in_force;
    low = product(w);
    // float64 is not concerned.
    const Tensor x64 = x.to(DType::float64), w64 = w.to(DType::float64);
    const auto a = linear(Variable(x64), Variable(w64)).value.to_vector<double>();
    double difference = 0;
    for (size_t i = 0; i < a.size(); i++) difference = test::worse(difference, std::fabs(a[i] - full[i]));
    CHECK(difference <= 1e-4);
  }
  CHECK(product(w) == full);
  double error = 0, size = 0;
  for (size_t i = 0; i < full.size(); i++) error += (low[i] - full[i]) * (low[i] - full[i]), size += full[i] * full[i];
  CHECK(std::sqrt(error / size) > 1e-4);
  CHECK(std::sqrt(error / size) < 5e-3);
}
