// The names of CUDA that kernels use, answered by the emulator. Included by engine/cuda/launch.cuh when the compiler is
// not nvcc.
#pragma once
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "engine/emu/block.h"

// NOLINTBEGIN(bugprone-reserved-identifier): these are their names
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

using dim3 = fastntk::emu::Extent3;
inline constinit thread_local fastntk::emu::Index3 threadIdx{}, blockIdx{};
inline constinit thread_local fastntk::emu::Extent3 blockDim{}, gridDim{};

namespace fastntk::emu {

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// The array of one declaration: `Tag` is the type of a lambda, which is different at every place.
template <class Array, class Tag>
Array& shared(Tag) {
  static const int declaration = next_declaration();
  return *static_cast<Array*>(Block::current().shared(declaration, sizeof(Array)));
}

/// kernel<<<grid, block>>>(arguments…)
template <class... Parameters, class... Arguments>
void launch(Extent3 grid, Extent3 block, void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "parameters are copied to the device byte by byte");
  auto call =
      std::make_pair(kernel, std::tuple<std::remove_cv_t<Parameters>...>{std::forward<Arguments>(arguments)...});
  run_grid({[](void* p) {
              auto& [function, parameters] = *static_cast<decltype(call)*>(p);
              std::apply(function, parameters);
            },
            &call, grid, block});
}

}  // namespace fastntk::emu

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  fastntk::emu::Block::current().barrier(where);
}
inline void __syncwarp(unsigned mask = 0xffffffffU, std::source_location where = std::source_location::current()) {
  fastntk::emu::Block::current().warp(fastntk::emu::WarpOp::wait, mask, 0, 0, 32, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              std::source_location where = std::source_location::current()) {
  return static_cast<unsigned>(
      fastntk::emu::Block::current().warp(fastntk::emu::WarpOp::ballot, mask, predicate != 0 ? 1 : 0, 0, 32, where));
}
inline int __any_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}
#define FASTNTK_SHUFFLE(name, op)                                                               \
  template <class T>                                                                            \
  T name(unsigned mask, T value, int argument, int width = 32,                                  \
         std::source_location where = std::source_location::current()) {                        \
    return fastntk::emu::from_bits<T>(fastntk::emu::Block::current().warp(                      \
        fastntk::emu::WarpOp::op, mask, fastntk::emu::to_bits(value), argument, width, where)); \
  }
FASTNTK_SHUFFLE(__shfl_sync, read_lane)
FASTNTK_SHUFFLE(__shfl_xor_sync, exchange)
FASTNTK_SHUFFLE(__shfl_up_sync, from_below)
FASTNTK_SHUFFLE(__shfl_down_sync, from_above)
#undef FASTNTK_SHUFFLE

/// The smaller of what is there and `value`; returns what was there.
template <class T>
T atomicMin(T* p, std::type_identity_t<T> value) {
  std::atomic_ref<T> there(*p);
  T old = there.load(std::memory_order_relaxed);
  while (value < old && !there.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
  return old;
}
// NOLINTEND(bugprone-reserved-identifier)
