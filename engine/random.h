// Random numbers without state: each is a pure function of (seed, stream, counter), so that neither the order of the
// calls nor the number of threads can change one. The generator is Philox4x32-10: Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

/// One block of Philox4x32-10: 128 random bits for every counter and key.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// The numbers of one stream of one seed. Different streams and different seeds are independent; the same counter
/// always gives the same number. Functions of the same counter are not independent of one another.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}
  /// Another stream of the same seed.
  Random stream(uint64_t number) const { return Random(seed_, number); }

  /// 64 random bits.
  uint64_t bits(uint64_t counter) const;
  /// Uniform in [0, 1): a multiple of 2⁻⁵³.
  double uniform(uint64_t counter) const;
  /// Uniform in [0, 1): a multiple of 2⁻²⁴.
  float uniform_float(uint64_t counter) const;
  /// Standard normal (Box and Muller), at most 8.6 in magnitude.
  double normal(uint64_t counter) const;
  /// An integer in [0, n), n > 0. Its bias is below n · 2⁻⁶⁴.
  int64_t below(int64_t n, uint64_t counter) const;

  /// 0 … n−1 in random order (Fisher and Yates); uses the counters below n.
  std::vector<int64_t> permutation(int64_t n) const;
  /// Element i, counted in row-major order, is uniform(i) (uniform_float(i) in float32) or normal(i) rounded.
  Tensor uniform_tensor(const Shape& shape, DType dtype = DType::float32) const;
  Tensor normal_tensor(const Shape& shape, DType dtype = DType::float32) const;

 private:
  std::array<uint32_t, 4> block(uint64_t counter) const;
  uint64_t seed_, stream_;
};

}  // namespace fastntk
