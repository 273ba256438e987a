// The matrix product that all convolution kernels are made of: a few pixels times one block of output channels, held in
// registers over all taps and input channels. Include only from engine/cpu/isa/*.cpp.
#pragma once
#include "engine/cpu/isa/convolution.h"
#include "engine/cpu/isa/vector.h"
#if defined(__FMA__)
#include <immintrin.h>
#endif

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

/// a * b + c, rounded once where the instruction set has FMA. Written out, and not left to contraction, because an
/// output must have the same bits from every kernel that can compute it.
template <class T>
inline __attribute__((always_inline)) Vector<T> multiply_add(Vector<T> a, Vector<T> b, Vector<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_fmadd_ps(a, b, c);
  else
    return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  if constexpr (sizeof(T) == 4)
    return _mm256_fmadd_ps(a, b, c);
  else
    return _mm256_fmadd_pd(a, b, c);
#else
  return a * b + c;
#endif
}

/// p, as a pointer that the compiler knows nothing about: it then addresses what is near from it, where it would else
/// form an address for each pixel beforehand and keep them all in memory.
template <class T>
inline __attribute__((always_inline)) T* opaque(T* p) {
  asm("" : "+r"(p));
  return p;
}

/// Into L2. An address outside the tensor is ignored by the processor.
template <int Write>
inline __attribute__((always_inline)) void prefetch(const void* p) {
  __builtin_prefetch(p, Write, 2);
}

/// Two vectors of 16 floats to a pixel halve the broadcasts; elsewhere 16 channels are two vectors or more already.
template <class T>
constexpr int wide_block = lanes<T> == 16 ? 32 : 16;
template <class T>
int64_t block_of(int64_t out_channels) {
  return out_channels % wide_block<T> == 0 ? wide_block<T> : channel_block;
}

/// Registers that hold sums; the others hold the weights (one to four) and the broadcast pixel.
constexpr int accumulators = vector_registers == 32 ? 28 : 12;
/// Most pixels of one tile whose output block is V vectors.
template <int V>
constexpr int tile_pixels = accumulators / V;

/// The sum over taps of one tile, see TapSum.
template <class T>
struct Taps {
  int64_t channel_blocks, taps;
  const int64_t* offset;
  int64_t block_stride, row_stride, out_row, out_pixel;
  bool fetch_out = false;  // whether to fetch the next tile's place in out
  // What the next call will read: `ahead_lines` cache lines of it are fetched with each tile and channel block.
  const T* ahead = nullptr;
  int64_t ahead_lines = 0;
};

/// `count` tiles of Rows x Columns pixels and V vectors of output channels, x_step and out_step elements apart. All
/// loops but those over blocks, taps and channels are unrolled (28 is the most accumulators), so that `sum` stays in
/// registers.
template <class T, int V, int Depth, int Rows, int Columns>
void tile_run(const Taps<T>& q, int64_t count, const T* x, int64_t x_step, const T* weights, T* out, int64_t out_step) {
  const T* ahead = q.ahead;
  for (int64_t n = 0; n < count; n++, x += x_step, out += out_step) {
    if (q.fetch_out)
      for (int r = 0; r < Rows; r++) {
        const T* next = out + out_step + r * q.out_row;
#pragma GCC unroll 28
        for (int c = 0; c < Columns; c++, next = opaque(next + q.out_pixel))
          for (int v = 0; v < V; v += 64 / vector_bytes) prefetch<1>(next + v * lanes<T>);
      }
    Vector<T> sum[Rows * Columns][V] = {};
    const T* w = weights;
    const T* block = x;
    for (int64_t b = 0; b < q.channel_blocks; b++, block += q.block_stride) {
      for (int64_t l = 0; l < q.ahead_lines; l++, ahead += 64 / sizeof(T)) prefetch<0>(ahead);
      for (int64_t t = 0; t < q.taps; t++) {
        const T* a[Rows];
#pragma GCC unroll 4
        for (int r = 0; r < Rows; r++) a[r] = opaque(block + q.offset[t] + r * q.row_stride);
#pragma GCC unroll 2
        for (int d = 0; d < Depth; d++, w += V * lanes<T>) {
          Vector<T> wv[V];
#pragma GCC unroll 8
          for (int v = 0; v < V; v++) wv[v] = load(w + v * lanes<T>);
#pragma GCC unroll 4
          for (int r = 0; r < Rows; r++)
#pragma GCC unroll 28
            for (int c = 0; c < Columns; c++) {
              const Vector<T> pixel = splat(a[r][d + c * Depth]);
#pragma GCC unroll 8
              for (int v = 0; v < V; v++)
                sum[r * Columns + c][v] = multiply_add<T>(pixel, wv[v], sum[r * Columns + c][v]);
            }
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r++) {
      T* pixel = out + r * q.out_row;
#pragma GCC unroll 28
      for (int c = 0; c < Columns; c++, pixel = opaque(pixel + q.out_pixel))
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) store(pixel + v * lanes<T>, sum[r * Columns + c][v]);
    }
  }
}

template <class T>
using TileRun = void (*)(const Taps<T>&, int64_t, const T*, int64_t, const T*, T*, int64_t);

/// The instance of tile_run for tiles of rows x columns pixels; at most MaxRows rows and tile_pixels<V> pixels.
template <class T, int V, int Depth, int MaxRows, int Rows = 1, int Columns = tile_pixels<V>>
TileRun<T> tile_run_for(int64_t rows, int64_t columns) {
  if (rows == Rows && columns == Columns) return tile_run<T, V, Depth, Rows, Columns>;
  if constexpr (Columns > 1)
    return tile_run_for<T, V, Depth, MaxRows, Rows, Columns - 1>(rows, columns);
  else if constexpr (Rows < MaxRows && tile_pixels<V> / (Rows + 1) > 0)
    return tile_run_for<T, V, Depth, MaxRows, Rows + 1, tile_pixels<V> / (Rows + 1)>(rows, columns);
  else
    return nullptr;
}

/// n cut into as few parts of at most `limit` as possible, as equal as possible: `large` of `size`, then `small` of
/// size - 1.
struct Parts {
  int64_t size, large, small;
};
inline Parts equal_parts(int64_t n, int64_t limit) {
  const int64_t parts = (n + limit - 1) / limit, size = (n + parts - 1) / parts;
  return {size, n - parts * (size - 1), parts * size - n};
}

}  // namespace
}  // namespace fastntk::cpu::FASTNTK_ISA
