// Softmax and its kin, a block for a row.
#include "engine/cuda/families.h"
#include "engine/cuda/reduce.cuh"
#include "engine/kernels/special_functions.h"

namespace fastntk::FASTNTK_GPU {

template <SoftmaxKind kind, class T>
__global__ void softmax_rows(int64_t rows, int64_t n, const T* x, T* y) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* const in = x + row * n;
    T largest = Max::start<T>();
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) largest = Max::join(largest, in[i]);
    largest = softmax_shift(join_block<Max>(largest));
    T sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += special::exp(in[i] - largest);
    sum = join_block<Sum>(sum);
    const T log_sum = std::log(sum);
    if constexpr (kind == SoftmaxKind::logsumexp) {
      if (threadIdx.x == 0) y[row] = largest + log_sum;
    } else {
      for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        y[row * n + i] =
            kind == SoftmaxKind::softmax ? special::exp(in[i] - largest) / sum : (in[i] - largest) - log_sum;
    }
  }
}

/// Row `row` of a stack of tangents t is at row `row % points` of p.
template <SoftmaxMap kind, class T>
__global__ void softmax_map_rows(int64_t rows, int64_t points, int64_t n, const T* p, const T* t, T* y) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *const at = p + row % points * n, *const in = t + row * n;
    T sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
      sum += kind == SoftmaxMap::log_softmax_transposed ? in[i] : at[i] * in[i];
    sum = join_block<Sum>(sum);
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      if constexpr (kind == SoftmaxMap::softmax)
        y[row * n + i] = at[i] * (in[i] - sum);
      else if constexpr (kind == SoftmaxMap::log_softmax)
        y[row * n + i] = in[i] - sum;
      else
        y[row * n + i] = in[i] - at[i] * sum;
    }
  }
}

template <class T>
void softmax_typed(SoftmaxKind kind, const Tensor& x, Tensor& out) {
  const int64_t n = x.extent(-1), rows = x.elements() / n;
  if (rows == 0) return;
  const auto kernel = kind == SoftmaxKind::softmax       ? softmax_rows<SoftmaxKind::softmax, T>
                      : kind == SoftmaxKind::log_softmax ? softmax_rows<SoftmaxKind::log_softmax, T>
                                                         : softmax_rows<SoftmaxKind::logsumexp, T>;
  launch({blocks_for(rows)}, {threads_for(n)}, kernel, rows, n, elements<T>(x), elements_to_write<T>(out));
}

void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out) {
  const Tensor packed = x.contiguous();
  for_floating(x.dtype(), "softmax", [&](auto zero) { softmax_typed<decltype(zero)>(kind, packed, out); });
}

template <class T>
void softmax_map_typed(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out) {
  const int64_t n = t.extent(-1), rows = t.elements() / n, points = p.elements() / n;
  if (rows == 0) return;
  const auto kernel = kind == SoftmaxMap::softmax       ? softmax_map_rows<SoftmaxMap::softmax, T>
                      : kind == SoftmaxMap::log_softmax ? softmax_map_rows<SoftmaxMap::log_softmax, T>
                                                        : softmax_map_rows<SoftmaxMap::log_softmax_transposed, T>;
  launch({blocks_for(rows)}, {threads_for(n)}, kernel, rows, points, n, elements<T>(p), elements<T>(t),
         elements_to_write<T>(out));
}

void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out) {
  require(p.dtype() == t.dtype(), "the linear map of softmax: {} at {}", t.describe(), p.describe());
  const Tensor point = p.contiguous(), packed = t.contiguous();
  for_floating(t.dtype(), "softmax", [&](auto zero) { softmax_map_typed<decltype(zero)>(kind, point, packed, out); });
}

}  // namespace fastntk::FASTNTK_GPU
