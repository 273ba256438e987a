// Vectors of the instruction set this file is being compiled for. Include only from engine/cpu/isa/*.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

#ifndef FASTNTK_ISA
#error "engine/cpu/isa/vector.h is for files compiled once per instruction set (cmake/isa.cmake)"
#endif

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
constexpr int vector_registers = 32;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
constexpr int vector_registers = 16;
#else
constexpr int vector_bytes = 16;
constexpr int vector_registers = 16;
#endif

/// One register of T, and how many elements it holds. GCC's vector extension: + - * are element by element, and
/// products followed by sums become FMA where the instruction set has it (-ffp-contract=fast in cmake/isa.cmake).
template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(vector_bytes)));
  typedef T unaligned __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
inline __attribute__((always_inline)) Vector<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}
template <class T>
inline __attribute__((always_inline)) void store(T* p, Vector<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}
template <class T>
inline __attribute__((always_inline)) Vector<T> splat(T x) {
  return x - Vector<T>{};  // compiles to one broadcast
}

}  // namespace
}  // namespace fastntk::cpu::FASTNTK_ISA
