// Random numbers without state: each is a pure function of (seed, stream, counter), so that neither the order of the
// calls nor the number of threads nor the device can change one (engine/kernels/random.h).
#pragma once
#include <cstdint>
#include <vector>

#include "engine/kernels/random.h"
#include "engine/tensor.h"

namespace fastntk {

/// The numbers of one stream of one seed. Different streams and different seeds are independent; the same counter
/// always gives the same number. Functions of the same counter are not independent of one another.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0) : numbers_{seed, stream} {}
  /// Another stream of the same seed.
  Random stream(uint64_t number) const { return Random(numbers_.seed, number); }

  /// 64 random bits.
  uint64_t bits(uint64_t counter) const { return numbers_.bits(counter); }
  /// Uniform in [0, 1): a multiple of 2⁻⁵³.
  double uniform(uint64_t counter) const { return numbers_.uniform(counter); }
  /// Uniform in [0, 1): a multiple of 2⁻²⁴.
  float uniform_float(uint64_t counter) const { return numbers_.uniform_float(counter); }
  /// Standard normal (Box and Muller), at most 8.6 in magnitude.
  double normal(uint64_t counter) const { return numbers_.normal(counter); }
  /// An integer in [0, n), n > 0. Its bias is below n · 2⁻⁶⁴.
  int64_t below(int64_t n, uint64_t counter) const;

  /// 0 … n−1 in random order (Fisher and Yates); uses the counters below n.
  std::vector<int64_t> permutation(int64_t n) const;
  /// Element i, counted in row-major order, is uniform(i) (uniform_float(i) in float32) or normal(i) rounded. They are
  /// made where they are to be; another device's logarithm and cosine may round a normal number in another way.
  Tensor uniform_tensor(const Shape& shape, DType dtype = DType::float32, Device device = Device::cpu) const;
  Tensor normal_tensor(const Shape& shape, DType dtype = DType::float32, Device device = Device::cpu) const;
  /// Element i is 0 where uniform_float(first + i) < rate, else 1 / (1 − rate); rate in [0, 1).
  Tensor dropout_mask(const Shape& shape, double rate, int64_t first, DType dtype = DType::float32,
                      Device device = Device::cpu) const;

 private:
  RandomNumbers numbers_;
};

}  // namespace fastntk
