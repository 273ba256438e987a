// The last elements of a row, fewer than a register holds, and reductions of a register. Include only from
// engine/cpu/isa/*.cpp.
#pragma once
#include "engine/cpu/isa/vector_math.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

#if defined(__AVX512F__)

inline __mmask16 first(int64_t count) { return static_cast<__mmask16>((1U << count) - 1U); }

/// The first `count` elements at p, fewer than lanes, and `filler` behind them; memory behind them is not touched.
FASTNTK_INLINE Vector<float> load_some(const float* p, int64_t count, float filler) {
  return (Vector<float>)_mm512_mask_loadu_ps(_mm512_set1_ps(filler), first(count), p);
}
FASTNTK_INLINE Vector<double> load_some(const double* p, int64_t count, double filler) {
  return (Vector<double>)_mm512_mask_loadu_pd(_mm512_set1_pd(filler), static_cast<__mmask8>(first(count)), p);
}
FASTNTK_INLINE void store_some(float* p, int64_t count, Vector<float> v) {
  _mm512_mask_storeu_ps(p, first(count), (__m512)v);
}
FASTNTK_INLINE void store_some(double* p, int64_t count, Vector<double> v) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(first(count)), (__m512d)v);
}

#elif defined(__AVX2__)

// All bits set in the first `count` elements.
FASTNTK_INLINE __m256i first(int64_t count, float) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
FASTNTK_INLINE __m256i first(int64_t count, double) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}

FASTNTK_INLINE Vector<float> load_some(const float* p, int64_t count, float filler) {
  const __m256i mask = first(count, filler);
  return (Vector<float>)_mm256_blendv_ps(_mm256_set1_ps(filler), _mm256_maskload_ps(p, mask), (__m256)mask);
}
FASTNTK_INLINE Vector<double> load_some(const double* p, int64_t count, double filler) {
  const __m256i mask = first(count, filler);
  return (Vector<double>)_mm256_blendv_pd(_mm256_set1_pd(filler), _mm256_maskload_pd(p, mask), (__m256d)mask);
}
FASTNTK_INLINE void store_some(float* p, int64_t count, Vector<float> v) {
  _mm256_maskstore_ps(p, first(count, 0.0F), (__m256)v);
}
FASTNTK_INLINE void store_some(double* p, int64_t count, Vector<double> v) {
  _mm256_maskstore_pd(p, first(count, 0.0), (__m256d)v);
}

#else

template <class T>
FASTNTK_INLINE Vector<T> load_some(const T* p, int64_t count, T filler) {
  T part[lanes<T>];
  for (int j = 0; j < lanes<T>; j++) part[j] = j < count ? p[j] : filler;
  return load(part);
}
template <class V>
FASTNTK_INLINE void store_some(Element<V>* p, int64_t count, V v) {
  for (int64_t j = 0; j < count; j++) p[j] = v[j];
}

#endif

/// Reductions in a fixed order: halves of the register, their halves, ….
template <class V>
FASTNTK_INLINE Element<V> sum_of_lanes(V v) {
  Element<V> part[lanes<Element<V>>];
  store(part, v);
#pragma GCC unroll 8
  for (int width = lanes<Element<V>> / 2; width > 0; width /= 2)
#pragma GCC unroll 16
    for (int j = 0; j < width; j++) part[j] += part[j + width];
  return part[0];
}
template <class V>
FASTNTK_INLINE Element<V> largest_of_lanes(V v) {
  Element<V> part[lanes<Element<V>>];
  store(part, v);
#pragma GCC unroll 8
  for (int width = lanes<Element<V>> / 2; width > 0; width /= 2)
#pragma GCC unroll 16
    for (int j = 0; j < width; j++) part[j] = part[j + width] > part[j] ? part[j + width] : part[j];
  return part[0];
}

}  // namespace
}  // namespace fastntk::cpu::FASTNTK_ISA
