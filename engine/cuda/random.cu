// Random tensors: the bits of the CPU.
#include <array>
#include <utility>

#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"

namespace fastntk::FASTNTK_GPU {

template <RandomKind kind, class T>
void fill_random(const Backend::RandomFill& arguments) {
  T* const to = elements_to_write<T>(arguments.out);
  const RandomNumbers numbers = arguments.numbers;
  const uint64_t first = arguments.first;
  const double p = arguments.p;
  for_each(arguments.out.elements(), [=] __device__(int64_t i) {
    to[i] = random_element<kind, T>(numbers, first + static_cast<uint64_t>(i), p);
  });
}

template <class T, size_t... kinds>
constexpr auto random_fills(std::index_sequence<kinds...>) {
  return std::array{&fill_random<static_cast<RandomKind>(kinds), T>...};
}

void random(const Backend::RandomFill& arguments) {
  for_floating(arguments.out.dtype(), "a random tensor", [&](auto zero) {
    static constexpr auto all = random_fills<decltype(zero)>(std::make_index_sequence<random_kinds>());
    all[static_cast<size_t>(arguments.kind)](arguments);
  });
}

}  // namespace fastntk::FASTNTK_GPU
