// Random numbers as functions of (seed, stream, counter), one source for every backend. The generator is
// Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include "engine/kernels/scalar.h"

namespace fastntk {

/// One block: 128 random bits for every counter and key.
FASTNTK_HOST_DEVICE inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                                          std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
  }
  return counter;
}

/// The numbers of one stream of one seed (engine/random.h says what they promise).
struct RandomNumbers {
  uint64_t seed = 0, stream = 0;

  FASTNTK_HOST_DEVICE uint64_t bits(uint64_t counter) const { return low(block(counter)); }
  FASTNTK_HOST_DEVICE double uniform(uint64_t counter) const { return unit(bits(counter)); }
  FASTNTK_HOST_DEVICE float uniform_float(uint64_t counter) const {
    return static_cast<float>(bits(counter) >> 40) * 0x1p-24F;
  }
  FASTNTK_HOST_DEVICE double normal(uint64_t counter) const {
    constexpr double two_pi = 6.283185307179586476925286766559;
    const auto words = block(counter);
    const double radius = unit(low(words)) + 0x1p-53;  // in (0, 1], so that the logarithm exists
    const double angle = unit(static_cast<uint64_t>(words[3]) << 32 | words[2]);
    return std::sqrt(-2 * std::log(radius)) * std::cos(two_pi * angle);
  }

 private:
  FASTNTK_HOST_DEVICE std::array<uint32_t, 4> block(uint64_t counter) const {
    return philox({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), static_cast<uint32_t>(stream),
                   static_cast<uint32_t>(stream >> 32)},
                  {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  }
  FASTNTK_HOST_DEVICE static uint64_t low(const std::array<uint32_t, 4>& words) {
    return static_cast<uint64_t>(words[1]) << 32 | words[0];
  }
  FASTNTK_HOST_DEVICE static double unit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }
};

enum class RandomKind : uint8_t {
  uniform,  ///< in [0, 1)
  normal,
  dropout,  ///< 0 with probability p, else 1 / (1 − p)
};
constexpr int random_kinds = static_cast<int>(RandomKind::dropout) + 1;

/// The number of this kind that belongs to a counter; `p` is the rate of dropout.
template <RandomKind kind, class T>
FASTNTK_HOST_DEVICE inline T random_element(const RandomNumbers& numbers, uint64_t counter, double p) {
  if constexpr (kind == RandomKind::normal) {
    return static_cast<T>(numbers.normal(counter));
  } else if constexpr (kind == RandomKind::dropout) {
    return static_cast<double>(numbers.uniform_float(counter)) < p ? T(0) : static_cast<T>(1 / (1 - p));
  } else if constexpr (sizeof(T) == sizeof(float)) {
    return numbers.uniform_float(counter);  // a double that is rounded could be 1
  } else {
    return static_cast<T>(numbers.uniform(counter));
  }
}

}  // namespace fastntk
