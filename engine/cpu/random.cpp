#include "engine/cpu/random.h"

#include <utility>

#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

constexpr int64_t grain = 1 << 13;

template <RandomKind kind, class T>
void fill(const Backend::RandomFill& arguments) {
  const auto& [unused, numbers, first, p, out] = arguments;
  T* const to = out.mutable_data<T>();
  parallel_ranges(out.elements(), grain, [&](int64_t from, int64_t end) {
    for (int64_t i = from; i < end; i++) to[i] = random_element<kind, T>(numbers, first + static_cast<uint64_t>(i), p);
  });
}

template <class T, size_t... kinds>
constexpr auto fills(std::index_sequence<kinds...>) {
  return std::array{&fill<static_cast<RandomKind>(kinds), T>...};
}

}  // namespace

void random(const Backend::RandomFill& arguments) {
  for_floating(arguments.out.dtype(), "a random tensor", [&](auto zero) {
    static constexpr auto all = fills<decltype(zero)>(std::make_index_sequence<random_kinds>());
    all[static_cast<size_t>(arguments.kind)](arguments);
  });
}

}  // namespace fastntk::cpu
