// The body of layer norm and RMS norm, a block for a row.
#include "engine/cuda/families.h"
#include "engine/cuda/reduce.cuh"

namespace fastntk::FASTNTK_GPU {

/// Coefficients [1 or N, D], or none.
template <class T>
struct Coefficients {
  const T* of = nullptr;
  Divisor rows;  // of a sample
  int64_t step = 0;

  Coefficients(const Tensor* t, int64_t rows, int64_t width)
      : of(elements<T>(t)), rows(rows), step(t && t->extent(0) != 1 ? width : 0) {}
  __device__ T operator()(int64_t row, int64_t d) const { return of[row / rows * step + d]; }
};

template <class T>
__global__ void row_norm_kernel(int64_t rows, int64_t width, const T* x, Coefficients<T> a, Coefficients<T> b,
                                double epsilon, bool centre, T* y, T* mean, T* rstd) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T* const in = x + row * width;
    double m = 0;
    if (centre) {
      for (int64_t d = threadIdx.x; d < width; d += blockDim.x) m += static_cast<double>(in[d]);
      m = join_block<Sum>(m) / static_cast<double>(width);
    }
    double square = 0;
    for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
      const double v = static_cast<double>(in[d]) - m;
      square += v * v;
    }
    const double r = 1 / std::sqrt(join_block<Sum>(square) / static_cast<double>(width) + epsilon);
    for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
      T v = (in[d] - static_cast<T>(m)) * static_cast<T>(r);
      if (a.of) v *= a(row, d);
      if (b.of) v += b(row, d);
      y[row * width + d] = v;
    }
    if (threadIdx.x == 0) {
      if (mean) mean[row] = static_cast<T>(m);
      if (rstd) rstd[row] = static_cast<T>(r);
    }
  }
}

/// Row `row` of a stack is at row `row % points` of x.
template <class T>
__global__ void row_norm_core_kernel(int64_t rows, int64_t points, int64_t width, const T* t, const T* x, const T* mean,
                                     const T* rstd, Coefficients<T> before, Coefficients<T> after, T* out) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t at = row % points;
    const T m = mean ? mean[at] : T(0), r = rstd[at];
    const auto u = [&](int64_t d) { return before.of ? before(at, d) * t[row * width + d] : t[row * width + d]; };
    double sum = 0, product = 0;
    for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
      const auto v = static_cast<double>(u(d));
      sum += v;
      product += v * static_cast<double>((x[at * width + d] - m) * r);
    }
    const T mean_u = mean ? static_cast<T>(join_block<Sum>(sum) / static_cast<double>(width)) : T(0);
    const T mean_product = static_cast<T>(join_block<Sum>(product) / static_cast<double>(width));
    for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
      const T xhat = (x[at * width + d] - m) * r;
      const T v = r * (u(d) - mean_u - xhat * mean_product);
      out[row * width + d] = after.of ? after(at, d) * v : v;
    }
  }
}

template <class T>
void row_norm_typed(const Backend::RowNorm& k) {
  const int64_t R = k.x.extent(1), D = k.x.extent(2), rows = k.x.extent(0) * R;
  if (k.x.elements() == 0) return;
  launch({blocks_for(rows)}, {threads_for(D)}, row_norm_kernel<T>, rows, D, elements<T>(k.x),
         Coefficients<T>(k.a, R, D), Coefficients<T>(k.b, R, D), k.epsilon, k.centre, elements_to_write<T>(k.y),
         elements_to_write<T>(k.mean), elements_to_write<T>(k.rstd));
}

void row_norm(const Backend::RowNorm& arguments) {
  for_floating(arguments.x.dtype(), "a norm of rows", [&](auto zero) { row_norm_typed<decltype(zero)>(arguments); });
}

template <class T>
void row_norm_core_typed(const Backend::RowNormCore& k) {
  const Shape& s = k.t.shape();
  const int64_t R = s[2], D = s[3], points = s[1] * R, rows = s[0] * points;
  if (k.t.elements() == 0) return;
  launch({blocks_for(rows)}, {threads_for(D)}, row_norm_core_kernel<T>, rows, points, D, elements<T>(k.t),
         elements<T>(k.x), elements<T>(k.mean), elements<T>(k.rstd), Coefficients<T>(k.before, R, D),
         Coefficients<T>(k.after, R, D), elements_to_write<T>(k.out));
}

void row_norm_core(const Backend::RowNormCore& arguments) {
  for_floating(arguments.t.dtype(), "a norm of rows",
               [&](auto zero) { row_norm_core_typed<decltype(zero)>(arguments); });
}

/// Element i of the rows that output o, (stack…, d), adds up: t, or t x̂.
template <class T>
struct RowToSum {
  const T *t, *x, *mean, *rstd;
  Divisor points, width;
  int64_t length;
  __device__ double operator()(int64_t o, int64_t i) const {
    const int64_t d = o % width, row = o / width * length + i, at = row % points;
    const auto v = static_cast<double>(t[row * width.value() + d]);
    if (!x) return v;
    const T m = mean ? mean[at] : T(0);
    return v * static_cast<double>((x[at * width.value() + d] - m) * rstd[at]);
  }
};

template <class T>
void row_norm_sums_typed(const Backend::RowNormSums& k) {
  const int64_t N = k.t.extent(1), R = k.t.extent(2), D = k.t.extent(3), points = N * R;
  const T *const t = elements<T>(k.t), *const x = elements<T>(k.x), *const mean = elements<T>(k.mean),
                 *const rstd = elements<T>(k.rstd);
  const auto add_up = [&](Tensor* total, bool times_xhat) {
    if (!total) return;
    const int64_t length = total->extent(1) == N ? R : N * R;
    reduce<Sum>(Neighbours::across, total->elements(), length,
                RowToSum<T>{t, times_xhat ? x : nullptr, mean, rstd, points, D, length},
                StoreAs<T>{elements_to_write<T>(*total)});
  };
  add_up(k.sum, false);
  add_up(k.sum_xhat, true);
}

void row_norm_sums(const Backend::RowNormSums& arguments) {
  for_floating(arguments.t.dtype(), "a norm of rows",
               [&](auto zero) { row_norm_sums_typed<decltype(zero)>(arguments); });
}

}  // namespace fastntk::FASTNTK_GPU
