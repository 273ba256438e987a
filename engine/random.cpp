#include "engine/random.h"

#include <numeric>

#include "engine/backend.h"

namespace fastntk {
namespace {

Tensor generate(const Shape& shape, DType dtype, Device device, RandomKind kind, const RandomNumbers& numbers,
                int64_t first = 0, double p = 0) {
  require(is_floating(dtype), "a random tensor of {}: float32 and float64 are possible", name_of(dtype));
  Tensor out(shape, dtype, device);
  backend(device).random({kind, numbers, static_cast<uint64_t>(first), p, out});
  return out;
}

}  // namespace

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

Tensor Random::uniform_tensor(const Shape& shape, DType dtype, Device device) const {
  return generate(shape, dtype, device, RandomKind::uniform, numbers_);
}

Tensor Random::normal_tensor(const Shape& shape, DType dtype, Device device) const {
  return generate(shape, dtype, device, RandomKind::normal, numbers_);
}

Tensor Random::dropout_mask(const Shape& shape, double rate, int64_t first, DType dtype, Device device) const {
  require(rate >= 0 && rate < 1 && first >= 0, "dropout needs a rate in [0, 1) and a first counter, got {} and {}",
          rate, first);
  return generate(shape, dtype, device, RandomKind::dropout, numbers_, first, rate);
}

}  // namespace fastntk
