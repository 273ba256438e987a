#include "engine/cpu/isa/channel_affine.h"

#include "engine/cpu/isa/vector.h"

// Channels are taken in blocks of B vectors whose coefficients stay in registers while the rows go by; what is left of
// the channels goes one by one. A channel's sums run over the rows in order, whatever the block.
namespace fastntk::cpu::FASTNTK_ISA {
namespace {

template <class T>
inline __attribute__((always_inline)) Vector<T> keep_positive(Vector<T> v, Vector<T> y) {
  return y > T(0) ? v : Vector<T>{};
}
template <class T>
inline T keep_positive(T v, T y, int) {
  return y > T(0) ? v : T(0);
}
template <class T>
inline __attribute__((always_inline)) Vector<T> rectify(Vector<T> v) {
  return v > T(0) ? v : v != v ? v : Vector<T>{};
}
template <class T>
inline T rectify(T v, int) {
  return v > T(0) ? v : v != v ? v : T(0);
}

// Calls block<B>(first channel) for as many vectors as there are, then scalar(channel) for the rest.
template <class T, class Block4, class Block2, class Block1, class Scalar>
inline void for_channels(int64_t channels, Block4 block4, Block2 block2, Block1 block1, Scalar scalar) {
  constexpr int64_t L = lanes<T>;
  int64_t c = 0;
  for (; c + 4 * L <= channels; c += 4 * L) block4(c);
  for (; c + 2 * L <= channels; c += 2 * L) block2(c);
  for (; c + L <= channels; c += L) block1(c);
  for (; c < channels; c++) scalar(c);
}

template <class T, int B, bool has_residual, bool has_relu>
void forward_block(int64_t rows, int64_t C, const T* x, const T* mean, const T* a, const T* b, const T* residual,
                   T* y) {
  constexpr int L = lanes<T>;
  Vector<T> m[B], f[B], o[B];
  for (int j = 0; j < B; j++) m[j] = load(mean + j * L), f[j] = load(a + j * L), o[j] = load(b + j * L);
  for (int64_t p = 0; p < rows; p++, x += C, y += C) {
#pragma GCC unroll 4
    for (int j = 0; j < B; j++) {
      Vector<T> v = (load(x + j * L) - m[j]) * f[j] + o[j];
      if constexpr (has_residual) v += load(residual + p * C + j * L);
      if constexpr (has_relu) v = rectify<T>(v);
      store(y + j * L, v);
    }
  }
}

template <class T, bool has_residual, bool has_relu>
void forward_typed(int64_t rows, int64_t C, const T* x, const T* mean, const T* a, const T* b, const T* r, T* y) {
  const auto block = [&]<int B>(int64_t c) {
    forward_block<T, B, has_residual, has_relu>(rows, C, x + c, mean + c, a + c, b + c, r + (has_residual ? c : 0),
                                                y + c);
  };
  for_channels<T>(
      C, [&](int64_t c) { block.template operator()<4>(c); }, [&](int64_t c) { block.template operator()<2>(c); },
      [&](int64_t c) { block.template operator()<1>(c); },
      [&](int64_t c) {
        for (int64_t p = 0; p < rows; p++) {
          T v = (x[p * C + c] - mean[c]) * a[c] + b[c];
          if constexpr (has_residual) v += r[p * C + c];
          if constexpr (has_relu) v = rectify<T>(v, 0);
          y[p * C + c] = v;
        }
      });
}

template <class T>
void forward(int64_t rows, int64_t C, const T* x, const T* mean, const T* a, const T* b, const T* residual, bool relu,
             T* y) {
  if (residual)
    relu ? forward_typed<T, true, true>(rows, C, x, mean, a, b, residual, y)
         : forward_typed<T, true, false>(rows, C, x, mean, a, b, residual, y);
  else
    relu ? forward_typed<T, false, true>(rows, C, x, mean, a, b, residual, y)
         : forward_typed<T, false, false>(rows, C, x, mean, a, b, residual, y);
}

template <class T, int B, bool has_mask, bool has_sum_gx, bool has_masked, bool has_dx>
void transposed_block(int64_t rows, int64_t C, const T* c, const T* y, const T* x, const T* mean, const T* a, T* sum_g,
                      T* sum_gx, T* masked, T* dx) {
  constexpr int L = lanes<T>;
  Vector<T> s[B] = {}, q[B] = {}, m[B] = {}, f[B] = {};
  for (int j = 0; j < B; j++) {
    if constexpr (has_sum_gx) m[j] = load(mean + j * L);
    if constexpr (has_dx) f[j] = load(a + j * L);
  }
  for (int64_t p = 0; p < rows; p++) {
#pragma GCC unroll 4
    for (int j = 0; j < B; j++) {
      const int64_t at = p * C + j * L;
      Vector<T> g = load(c + at);
      if constexpr (has_mask) g = keep_positive<T>(g, load(y + at));
      s[j] += g;
      if constexpr (has_sum_gx) q[j] += g * (load(x + at) - m[j]);
      if constexpr (has_masked) store(masked + at, g);
      if constexpr (has_dx) store(dx + at, static_cast<Vector<T>>(g * f[j]));
    }
  }
  for (int j = 0; j < B; j++) {
    if (sum_g) store(sum_g + j * L, s[j]);
    if constexpr (has_sum_gx) store(sum_gx + j * L, q[j]);
  }
}

template <class T, bool has_mask, bool has_sum_gx, bool has_masked, bool has_dx>
void transposed_typed(int64_t rows, int64_t C, const T* c, const T* y, const T* x, const T* mean, const T* a, T* sum_g,
                      T* sum_gx, T* masked, T* dx) {
  const auto at = [](auto* p, int64_t channel) { return p ? p + channel : p; };
  const auto block = [&]<int B>(int64_t k) {
    transposed_block<T, B, has_mask, has_sum_gx, has_masked, has_dx>(rows, C, c + k, at(y, k), at(x, k), at(mean, k),
                                                                     at(a, k), at(sum_g, k), at(sum_gx, k),
                                                                     at(masked, k), at(dx, k));
  };
  for_channels<T>(
      C, [&](int64_t k) { block.template operator()<4>(k); }, [&](int64_t k) { block.template operator()<2>(k); },
      [&](int64_t k) { block.template operator()<1>(k); },
      [&](int64_t k) {
        T s = 0, q = 0;
        for (int64_t p = 0; p < rows; p++) {
          const int64_t i = p * C + k;
          T g = c[i];
          if constexpr (has_mask) g = keep_positive<T>(g, y[i], 0);
          s += g;
          if constexpr (has_sum_gx) q += g * (x[i] - mean[k]);
          if constexpr (has_masked) masked[i] = g;
          if constexpr (has_dx) dx[i] = g * a[k];
        }
        if (sum_g) sum_g[k] = s;
        if constexpr (has_sum_gx) sum_gx[k] = q;
      });
}

template <class T>
void transposed(int64_t rows, int64_t C, const T* c, const T* y, const T* x, const T* mean, const T* a, T* sum_g,
                T* sum_gx, T* masked, T* dx) {
  const auto run = [&]<bool M, bool Q, bool G, bool D>() {
    transposed_typed<T, M, Q, G, D>(rows, C, c, y, x, mean, a, sum_g, sum_gx, masked, dx);
  };
  const auto with_dx = [&]<bool M, bool Q, bool G>() {
    dx ? run.template operator()<M, Q, G, true>() : run.template operator()<M, Q, G, false>();
  };
  const auto with_masked = [&]<bool M, bool Q>() {
    masked ? with_dx.template operator()<M, Q, true>() : with_dx.template operator()<M, Q, false>();
  };
  const auto with_sums = [&]<bool M>() {
    sum_gx ? with_masked.template operator()<M, true>() : with_masked.template operator()<M, false>();
  };
  y ? with_sums.template operator()<true>() : with_sums.template operator()<false>();
}

template <class T, int B, bool has_mask>
void transposed_batch_block(int64_t rows, int64_t C, const T* c, const T* y, const T* x, const T* mean, const T* a,
                            const T* s, const T* d, T* dx) {
  constexpr int L = lanes<T>;
  Vector<T> m[B], f[B], q[B], o[B];
  for (int j = 0; j < B; j++)
    m[j] = load(mean + j * L), f[j] = load(a + j * L), q[j] = load(s + j * L), o[j] = load(d + j * L);
  for (int64_t p = 0; p < rows; p++) {
#pragma GCC unroll 4
    for (int j = 0; j < B; j++) {
      const int64_t at = p * C + j * L;
      Vector<T> g = load(c + at);
      if constexpr (has_mask) g = keep_positive<T>(g, load(y + at));
      store(dx + at, static_cast<Vector<T>>(f[j] * g + (q[j] * (load(x + at) - m[j]) + o[j])));
    }
  }
}

template <class T, bool has_mask>
void transposed_batch_typed(int64_t rows, int64_t C, const T* c, const T* y, const T* x, const T* mean, const T* a,
                            const T* s, const T* d, T* dx) {
  const auto block = [&]<int B>(int64_t k) {
    transposed_batch_block<T, B, has_mask>(rows, C, c + k, has_mask ? y + k : y, x + k, mean + k, a + k, s + k, d + k,
                                           dx + k);
  };
  for_channels<T>(
      C, [&](int64_t k) { block.template operator()<4>(k); }, [&](int64_t k) { block.template operator()<2>(k); },
      [&](int64_t k) { block.template operator()<1>(k); },
      [&](int64_t k) {
        for (int64_t p = 0; p < rows; p++) {
          const int64_t i = p * C + k;
          T g = c[i];
          if constexpr (has_mask) g = keep_positive<T>(g, y[i], 0);
          dx[i] = a[k] * g + (s[k] * (x[i] - mean[k]) + d[k]);
        }
      });
}

template <class T>
void transposed_batch(int64_t rows, int64_t C, const T* c, const T* y, const T* x, const T* mean, const T* a,
                      const T* s, const T* d, T* dx) {
  y ? transposed_batch_typed<T, true>(rows, C, c, y, x, mean, a, s, d, dx)
    : transposed_batch_typed<T, false>(rows, C, c, y, x, mean, a, s, d, dx);
}

// Short runs of rows are summed in T, the runs in double.
template <class T, int B>
void moments_block(int64_t rows, int64_t C, const T* x, const T* origin, double* sum, double* squares) {
  constexpr int L = lanes<T>;
  constexpr int64_t run = 32;
  Vector<T> o[B];
  for (int j = 0; j < B; j++) o[j] = load(origin + j * L);
  for (int i = 0; i < B * L; i++) sum[i] = squares[i] = 0;
  for (int64_t first = 0; first < rows; first += run) {
    Vector<T> s[B] = {}, q[B] = {};
    for (int64_t p = first; p < rows && p < first + run; p++)
#pragma GCC unroll 4
      for (int j = 0; j < B; j++) {
        const Vector<T> v = load(x + p * C + j * L) - o[j];
        s[j] += v;
        q[j] += v * v;
      }
    for (int j = 0; j < B; j++)
      for (int i = 0; i < L; i++) sum[j * L + i] += s[j][i], squares[j * L + i] += q[j][i];
  }
}

template <class T>
void moments(int64_t rows, int64_t C, const T* x, const T* origin, double* sum, double* squares) {
  const auto block = [&]<int B>(int64_t k) { moments_block<T, B>(rows, C, x + k, origin + k, sum + k, squares + k); };
  for_channels<T>(
      C, [&](int64_t k) { block.template operator()<4>(k); }, [&](int64_t k) { block.template operator()<2>(k); },
      [&](int64_t k) { block.template operator()<1>(k); },
      [&](int64_t k) {
        sum[k] = squares[k] = 0;
        for (int64_t p = 0; p < rows; p++) {
          const double v = static_cast<double>(x[p * C + k]) - static_cast<double>(origin[k]);
          sum[k] += v, squares[k] += v * v;
        }
      });
}

}  // namespace

extern const ChannelAffineTable channel_affine_table;
const ChannelAffineTable channel_affine_table = {
    {forward<float>, transposed<float>, transposed_batch<float>, moments<float>},
    {forward<double>, transposed<double>, transposed_batch<double>, moments<double>}};

}  // namespace fastntk::cpu::FASTNTK_ISA
