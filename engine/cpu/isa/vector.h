// Vectors of the instruction set this file is being compiled for. Include only from engine/cpu/isa/*.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

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

/// The first `count` elements only; the others are neither read nor written, and zero in the register.
template <class T>
inline __attribute__((always_inline)) Vector<T> load_first(const T* p, int64_t count) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1U << count) - 1);
  if constexpr (sizeof(T) == 4)
    return (Vector<T>)_mm512_maskz_loadu_ps(mask, p);
  else
    return (Vector<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), p);
#else
  Vector<T> v{};
  for (int i = 0; i < lanes<T>; i++)
    if (i < count) v[i] = p[i];
  return v;
#endif
}
template <class T>
inline __attribute__((always_inline)) void store_first(T* p, Vector<T> v, int64_t count) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1U << count) - 1);
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, mask, (__m512)v);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), (__m512d)v);
#else
  for (int i = 0; i < lanes<T>; i++)
    if (i < count) p[i] = v[i];
#endif
}

/// In the place of a count: a whole register. So one body serves a loop and its last, partial vector.
struct Whole {};
template <class T>
inline __attribute__((always_inline)) Vector<T> load(const T* p, Whole) {
  return load(p);
}
template <class T>
inline __attribute__((always_inline)) Vector<T> load(const T* p, int64_t count) {
  return load_first(p, count);
}
template <class T>
inline __attribute__((always_inline)) void store(T* p, Vector<T> v, Whole) {
  store(p, v);
}
template <class T>
inline __attribute__((always_inline)) void store(T* p, Vector<T> v, int64_t count) {
  store_first(p, v, count);
}
/// v with zeros from element `count` on.
template <class T>
inline __attribute__((always_inline)) Vector<T> keep_first(Vector<T> v, Whole) {
  return v;
}
template <class T>
inline __attribute__((always_inline)) Vector<T> keep_first(Vector<T> v, int64_t count) {
  for (int i = 0; i < lanes<T>; i++)
    if (i >= count) v[i] = 0;
  return v;
}

/// Lane i is lane index[i] of v, or of w if index[i] counts on from the lanes of v. Clang knows no shuffle by a vector.
template <class T, class Index>
inline __attribute__((always_inline)) Vector<T> shuffle(Vector<T> v, Vector<T> w, Index index) {
#ifdef __clang__
  Vector<T> out{};
  for (int i = 0; i < lanes<T>; i++) out[i] = index[i] < lanes<T> ? v[index[i]] : w[index[i] - lanes<T>];
  return out;
#else
  return __builtin_shuffle(v, w, index);
#endif
}

/// The sum of all lanes: neighbours first, then pairs of them, and so on.
template <class T>
inline __attribute__((always_inline)) T horizontal_sum(Vector<T> v) {
  using Index = decltype(v < v);
#pragma GCC unroll 4
  for (int distance = 1; distance < lanes<T>; distance *= 2) {
    Index partner{};
    for (int i = 0; i < lanes<T>; i++) partner[i] = i ^ distance;
    v += shuffle<T>(v, v, partner);
  }
  return v[0];
}

}  // namespace
}  // namespace fastntk::cpu::FASTNTK_ISA
