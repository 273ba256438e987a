#include "engine/cpu/isa/weight_gradient.h"

#include "engine/cpu/isa/vector.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

// Three vectors per row: 24 accumulators of 32 registers, 12 of 16. More than 8 hide the latency of the multiply-adds.
constexpr int tile_rows = vector_registers == 32 ? 8 : 4;

// Every loop over accumulators must be unrolled, or the compiler keeps them in memory.
template <class T, int V>
void tile(int64_t pixels, const int64_t* offsets, const T* x, const T* dy, T* out, int64_t stride, bool add) {
  constexpr int L = lanes<T>, R = tile_rows;
  Vector<T> sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) sum[r][v] = Vector<T>{};
#pragma GCC unroll 1
  for (int64_t p = 0; p < pixels; p++, dy += R) {
    const T* const from = x + offsets[p];
    Vector<T> row[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) row[v] = load(from + v * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const Vector<T> y = splat(dy[r]);
#pragma GCC unroll 3
      for (int v = 0; v < V; v++) sum[r][v] += y * row[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) {
      T* const to = out + r * stride + v * L;
      store(to, add ? load(to) + sum[r][v] : sum[r][v]);
    }
}

template <class T>
constexpr WeightGradientKernels<T> kernels = {tile_rows, lanes<T>, {tile<T, 1>, tile<T, 2>, tile<T, 3>}};

}  // namespace

const WeightGradientTable weight_gradient_table = {kernels<float>, kernels<double>};

}  // namespace fastntk::cpu::FASTNTK_ISA
