// Dropout and stochastic depth: which elements fall depends on the numbers of the sample alone.
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/ops/dropout.h"
#include "engine/ops/reduce.h"
#include "engine/parallel.h"

using namespace fastntk;

namespace {

std::vector<float> values(const Variable& x) { return x.value.to_vector<float>(); }

struct Threads {
  int before = thread_count();
  explicit Threads(int n) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
};

}  // namespace

TEST_CASE("dropout has the same bits for any number of threads and any split of the batch") {
  const Random random(11, 2);
  const Tensor x = Random(1).normal_tensor({9, 37, 64});
  for (const auto drop : {dropout, drop_path}) {
    const std::vector<float> whole = values(drop(x, 0.3, random, 0));
    for (const int threads : {1, 2, 3}) {
      const Threads scope(threads);
      CHECK(values(drop(x, 0.3, random, 0)) == whole);
    }
    for (const int64_t tile : {1, 2, 4}) {
      std::vector<float> parts;
      for (int64_t from = 0; from < 9; from += tile) {
        const auto part = values(drop(x.slice(0, from, std::min<int64_t>(9, from + tile)), 0.3, random, from));
        parts.insert(parts.end(), part.begin(), part.end());
      }
      CHECK(parts == whole);
    }
    CHECK(values(drop(x, 0.3, random.stream(3), 0)) != whole);
    CHECK(values(drop(x, 0.3, Random(12, 2), 0)) != whole);
    CHECK(values(drop(x, 0, random, 0)) == x.to_vector<float>());
  }
}

TEST_CASE("dropout keeps the mean, and drops the share it is told to") {
  const int64_t n = 1 << 16;
  for (const double rate : {0.1, 0.5, 0.9}) {
    const auto y = values(dropout(Tensor::full({n}, 1), rate, Random(5)));
    double sum = 0, dropped = 0;
    for (const float v : y) {
      CHECK((v == 0 || v == static_cast<float>(1 / (1 - rate))));
      sum += static_cast<double>(v), dropped += v == 0;
    }
    const double deviation = std::sqrt(rate * (1 - rate) / static_cast<double>(n));
    CHECK(std::abs(dropped / static_cast<double>(n) - rate) < 4 * deviation);
    CHECK(std::abs(sum / static_cast<double>(n) - 1) < 4 * deviation / (1 - rate));
  }
}

TEST_CASE("drop_path drops whole samples") {
  const auto y = values(drop_path(Tensor::full({64, 2, 3}, 1), 0.5, Random(5)));
  int dropped = 0;
  for (size_t n = 0; n < 64; n++) {
    for (size_t i = 1; i < 6; i++) CHECK(y[6 * n + i] == y[6 * n]);
    dropped += y[6 * n] == 0;
  }
  CHECK((dropped > 16 && dropped < 48));
}
