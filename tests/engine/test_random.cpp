#include "engine/random.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/parallel.h"
#include "test_device.h"

using namespace fastntk;
using test::test_device;

TEST_CASE("Philox4x32-10 gives the known answers of Random123") {
  using Block = std::array<uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("seed, stream and counter each reach the generator, all 64 bits of them") {
  const auto first = philox({1, 2, 3, 4}, {5, 6});
  CHECK(Random(uint64_t{6} << 32 | 5, uint64_t{4} << 32 | 3).bits(uint64_t{2} << 32 | 1) ==
        (uint64_t{first[1]} << 32 | first[0]));
  const Random random(7, 1);
  CHECK(random.bits(3) != random.bits(4));
  CHECK(random.bits(3) != random.stream(2).bits(3));
  CHECK(random.bits(3) == random.stream(2).stream(1).bits(3));
  CHECK(random.bits(3) != Random(8, 1).bits(3));
}

TEST_CASE("uniform numbers fill the unit interval evenly") {
  const Random random(1);
  const int64_t n = 100000;
  std::vector<int> bins(10), float_bins(10);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const double x = random.uniform(static_cast<uint64_t>(i));
    const float f = random.uniform_float(static_cast<uint64_t>(i));
    REQUIRE((x >= 0 && x < 1 && f >= 0 && f < 1));
    bins[static_cast<size_t>(x * 10)]++, float_bins[static_cast<size_t>(f * 10)]++;
    sum += x;
  }
  CHECK(std::abs(sum / n - 0.5) < 5 / std::sqrt(12.0 * n));
  for (size_t b = 0; b < 10; b++) {
    CHECK(std::abs(bins[b] - n / 10) < 5 * std::sqrt(n * 0.09));
    CHECK(std::abs(float_bins[b] - n / 10) < 5 * std::sqrt(n * 0.09));
  }
}

TEST_CASE("normal numbers have the moments and the tails of the normal distribution") {
  const Random random(2);
  const int n = 200000;
  double moments[5] = {};
  int beyond_one = 0, beyond_three = 0;
  for (int i = 0; i < n; i++) {
    const double x = random.normal(static_cast<uint64_t>(i));
    for (int k = 1; k < 5; k++) moments[k] += std::pow(x, k) / n;
    beyond_one += std::abs(x) > 1, beyond_three += std::abs(x) > 3;
  }
  CHECK(std::abs(moments[1]) < 5 / std::sqrt(n));
  CHECK(std::abs(moments[2] - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::abs(moments[3]) < 5 * std::sqrt(15.0 / n));
  CHECK(std::abs(moments[4] - 3) < 5 * std::sqrt(96.0 / n));
  CHECK(std::abs(beyond_one / double{n} - 0.3173105) < 5 * std::sqrt(0.217 / n));
  CHECK(std::abs(beyond_three / double{n} - 0.0026998) < 5 * std::sqrt(0.0027 / n));
}

TEST_CASE("integers below n are all met, and no others") {
  const Random random(3);
  std::vector<int> count(7);
  for (uint64_t i = 0; i < 7000; i++) count.at(static_cast<size_t>(random.below(7, i)))++;
  for (const int c : count) CHECK(std::abs(c - 1000) < 5 * std::sqrt(857));
  CHECK(random.below(1, 9) == 0);
  CHECK(random.below(int64_t{1} << 62, 9) >= 0);
  CHECK_THROWS_WITH(random.below(0, 0), Catch::Contains("must be positive"));
}

TEST_CASE("a permutation holds every number once, and every one of them comes up") {
  const Random random(4);
  auto order = random.permutation(1000);
  CHECK(order == random.permutation(1000));
  CHECK(order != random.stream(1).permutation(1000));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 1000; i++) REQUIRE(order[static_cast<size_t>(i)] == i);
  CHECK(random.permutation(0).empty());

  std::vector<int> count(27);  // the six orders of three, read as numbers of base 3
  for (uint64_t s = 0; s < 6000; s++) {
    const auto p = random.stream(s).permutation(3);
    count[static_cast<size_t>(9 * p[0] + 3 * p[1] + p[2])]++;
  }
  CHECK(std::count(count.begin(), count.end(), 0) == 27 - 6);
  for (const int c : count) CHECK((c == 0 || std::abs(c - 1000) < 5 * std::sqrt(833)));
}

TEST_CASE("random tensors hold the numbers of their counters, for any number of threads") {
  const Random random(5, 6);
  const Tensor x = random.normal_tensor({100, 999}, DType::float64);
  const Tensor f = random.normal_tensor({100, 999});
  const Tensor u = random.uniform_tensor({3, 5});
  CHECK(x.data<double>()[54321] == random.normal(54321));
  CHECK(f.data<float>()[54321] == static_cast<float>(random.normal(54321)));
  CHECK(u.data<float>()[14] == random.uniform_float(14));
  CHECK(random.uniform_tensor({3, 5}, DType::float64).data<double>()[14] == random.uniform(14));
  const int threads = thread_count();
  for (const int count : {1, 3}) {
    set_thread_count(count);
    CHECK(random.normal_tensor({100, 999}, DType::float64).to_vector<double>() == x.to_vector<double>());
  }
  set_thread_count(threads);
  CHECK_THROWS_AS(random.normal_tensor({3}, DType::int64), Error);
  CHECK_THROWS_WITH(random.dropout_mask({3}, 1, 0), Catch::Contains("a rate in [0, 1)"));
}

TEST_CASE("a device makes the random bits of the CPU by itself", "[device]") {
  const Random random(uint64_t{5} << 40 | 3, uint64_t{6} << 40 | 2);
  const Shape shape{37, 21};
  for (const DType dtype : {DType::float32, DType::float64}) {
    const auto values = [&](const Tensor& t) { return t.to(Device::cpu).to(DType::float64).to_vector<double>(); };
    const Tensor there = random.uniform_tensor(shape, dtype, test_device());
    CHECK(there.device() == test_device());
    CHECK(values(there) == values(random.uniform_tensor(shape, dtype)));
    CHECK(values(random.dropout_mask(shape, 0.3, int64_t{1} << 40, dtype, test_device())) ==
          values(random.dropout_mask(shape, 0.3, int64_t{1} << 40, dtype)));
    const auto here = values(random.normal_tensor(shape, dtype)),
               normal = values(random.normal_tensor(shape, dtype, test_device()));
    const double rounding = dtype == DType::float32 ? 1e-6 : 1e-14;
    for (size_t i = 0; i < here.size(); i++) REQUIRE(std::abs(here[i] - normal[i]) <= rounding * std::abs(here[i]));
  }
}
