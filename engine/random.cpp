#include "engine/random.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "engine/parallel.h"

namespace fastntk {
namespace {

constexpr double unit53 = 0x1p-53;

uint64_t join(uint32_t low, uint32_t high) { return static_cast<uint64_t>(high) << 32 | low; }
double to_unit(uint64_t bits) { return static_cast<double>(bits >> 11) * unit53; }

// Pieces of elements, each filled from its own counters.
template <class F>
Tensor generate(const Shape& shape, DType dtype, F&& number) {
  Tensor t(shape, dtype);
  for_floating(dtype, "a random tensor", [&](auto zero) {
    using T = decltype(zero);
    T* const p = t.mutable_data<T>();
    parallel_ranges(t.elements(), 1 << 13, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) p[i] = static_cast<T>(number(static_cast<uint64_t>(i)));
    });
  });
  return t;
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
  }
  return counter;
}

std::array<uint32_t, 4> Random::block(uint64_t counter) const {
  return philox({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), static_cast<uint32_t>(stream_),
                 static_cast<uint32_t>(stream_ >> 32)},
                {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
}

uint64_t Random::bits(uint64_t counter) const {
  const auto words = block(counter);
  return join(words[0], words[1]);
}

double Random::uniform(uint64_t counter) const { return to_unit(bits(counter)); }

float Random::uniform_float(uint64_t counter) const { return static_cast<float>(bits(counter) >> 40) * 0x1p-24F; }

double Random::normal(uint64_t counter) const {
  const auto words = block(counter);
  const double radius = to_unit(join(words[0], words[1])) + unit53;  // in (0, 1], so that the logarithm exists
  const double angle = to_unit(join(words[2], words[3]));
  return std::sqrt(-2 * std::log(radius)) * std::cos(2 * std::numbers::pi * angle);
}

int64_t Random::below(int64_t n, uint64_t counter) const {
  require(n > 0, "a random integer below {}: the bound must be positive", n);
  return static_cast<int64_t>(static_cast<unsigned __int128>(bits(counter)) * static_cast<uint64_t>(n) >> 64);
}

std::vector<int64_t> Random::permutation(int64_t n) const {
  require(n >= 0, "a permutation of {} numbers does not exist", n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; i--)
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(below(i + 1, static_cast<uint64_t>(i)))]);
  return order;
}

Tensor Random::uniform_tensor(const Shape& shape, DType dtype) const {
  // A float32 rounded from a double could be 1, which is outside the interval.
  if (dtype == DType::float32) return generate(shape, dtype, [this](uint64_t i) { return uniform_float(i); });
  return generate(shape, dtype, [this](uint64_t i) { return uniform(i); });
}

Tensor Random::normal_tensor(const Shape& shape, DType dtype) const {
  return generate(shape, dtype, [this](uint64_t i) { return normal(i); });
}

}  // namespace fastntk
