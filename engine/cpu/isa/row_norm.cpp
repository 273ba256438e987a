#include "engine/cpu/isa/row_norm.h"

#include "engine/cpu/isa/vector.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

// The order of a sum over a row is part of the result: four registers take turns, the rest goes to the first, and then
// all lanes are added in pairs.
constexpr int unroll = 4;

/// Calls f(j, k, count) for the vectors of a row: elements j … j + count, accumulator k; count is Whole but for the
/// last vector of a row that does not end at a register's end.
template <class T, class F>
inline __attribute__((always_inline)) void for_vectors(int64_t width, F&& f) {
  constexpr int64_t L = lanes<T>;
  int64_t j = 0;
  for (; j + unroll * L <= width; j += unroll * L)
#pragma GCC unroll 4
    for (int k = 0; k < unroll; k++) f(j + k * L, k, Whole{});
  for (; j + L <= width; j += L) f(j, 0, Whole{});
  if (j < width) f(j, 0, width - j);
}

template <class T>
inline __attribute__((always_inline)) T total(const Vector<T> (&s)[unroll]) {
  return horizontal_sum<T>((s[0] + s[1]) + (s[2] + s[3]));
}

template <class T, bool has_a, bool has_b>
void forward_row(int64_t width, double epsilon, bool centre, const T* x, const T* a, const T* b, T* y, T& mean,
                 T& rstd) {
  const T n = static_cast<T>(width);
  mean = 0;
  if (centre) {
    Vector<T> s[unroll] = {};
    for_vectors<T>(width, [&](int64_t j, int k, auto count) { s[k] += load(x + j, count); });
    mean = total<T>(s) / n;
  }
  const Vector<T> m = splat(mean);
  Vector<T> q[unroll] = {};
  for_vectors<T>(width, [&](int64_t j, int k, auto count) {
    const Vector<T> v = keep_first<T>(load(x + j, count) - m, count);
    q[k] += v * v;
  });
  rstd = static_cast<T>(1 / __builtin_sqrt(static_cast<double>(total<T>(q) / n) + epsilon));
  const Vector<T> r = splat(rstd);
  for_vectors<T>(width, [&](int64_t j, int, auto count) {
    Vector<T> v = (load(x + j, count) - m) * r;
    if constexpr (has_a) v = v * load(a + j, count);
    if constexpr (has_b) v = v + load(b + j, count);
    store(y + j, v, count);
  });
}

template <class T>
void forward(int64_t rows, int64_t width, double epsilon, bool centre, const T* x, const T* a, const T* b, T* y,
             T* mean, T* rstd) {
  const auto row = b ? forward_row<T, true, true> : a ? forward_row<T, true, false> : forward_row<T, false, false>;
  for (int64_t i = 0; i < rows; i++) {
    T m, r;
    row(width, epsilon, centre, x + i * width, a, b, y + i * width, m, r);
    if (mean) mean[i] = m;
    if (rstd) rstd[i] = r;
  }
}

template <class T>
void normalise(int64_t width, const T* x, T mean, T rstd, T* xhat) {
  const Vector<T> m = splat(mean), r = splat(rstd);
  for_vectors<T>(width, [&](int64_t j, int, auto count) {
    store(xhat + j, static_cast<Vector<T>>((load(x + j, count) - m) * r), count);
  });
}

template <class T, bool has_before, bool has_after>
void core_of(int64_t width, bool centre, const T* xhat, T rstd, const T* before, const T* after, const T* t, T* out) {
  const auto u = [&](int64_t j, auto count) __attribute__((always_inline)) {
    Vector<T> v = load(t + j, count);
    if constexpr (has_before) v = v * load(before + j, count);
    return v;
  };
  Vector<T> s[unroll] = {}, q[unroll] = {};
  for_vectors<T>(width, [&](int64_t j, int k, auto count) {
    const Vector<T> v = u(j, count);
    s[k] += v;
    q[k] += v * load(xhat + j, count);
  });
  const T n = static_cast<T>(width);
  const Vector<T> m = splat(centre ? total<T>(s) / n : T(0)), c = splat(total<T>(q) / n), r = splat(rstd);
  for_vectors<T>(width, [&](int64_t j, int, auto count) {
    Vector<T> v = (u(j, count) - m - load(xhat + j, count) * c) * r;
    if constexpr (has_after) v = v * load(after + j, count);
    store(out + j, v, count);
  });
}

template <class T>
void core(int64_t width, bool centre, const T* xhat, T rstd, const T* before, const T* after, const T* t, T* out) {
  const auto f = before ? (after ? core_of<T, true, true> : core_of<T, true, false>)
                        : (after ? core_of<T, false, true> : core_of<T, false, false>);
  f(width, centre, xhat, rstd, before, after, t, out);
}

// Sums over rows of a few columns at a time, which stay in registers.
template <class T>
void sums(int64_t rows, int64_t width, const T* t, const T* x, const T* mean, const T* rstd, T* sum, T* sum_xhat) {
  constexpr int64_t L = lanes<T>;
  const auto columns = [&]<int B>(int64_t j, auto count) {
    Vector<T> s[B] = {}, q[B] = {};
    for (int64_t i = 0; i < rows; i++) {
      const Vector<T> m = splat(mean ? mean[i] : T(0)), r = splat(rstd ? rstd[i] : T(0));
#pragma GCC unroll 4
      for (int k = 0; k < B; k++) {
        const Vector<T> v = load(t + i * width + j + k * L, count);
        s[k] += v;
        if (sum_xhat) q[k] += v * ((load(x + i * width + j + k * L, count) - m) * r);
      }
    }
    for (int k = 0; k < B; k++) {
      if (sum) store(sum + j + k * L, s[k], count);
      if (sum_xhat) store(sum_xhat + j + k * L, q[k], count);
    }
  };
  int64_t j = 0;
  for (; j + 4 * L <= width; j += 4 * L) columns.template operator()<4>(j, Whole{});
  for (; j + L <= width; j += L) columns.template operator()<1>(j, Whole{});
  if (j < width) columns.template operator()<1>(j, width - j);
}

template <class T>
constexpr RowNormLoops<T> loops = {forward<T>, normalise<T>, core<T>, sums<T>};

}  // namespace

extern const RowNormTable row_norm_table;
const RowNormTable row_norm_table = {loops<float>, loops<double>};

}  // namespace fastntk::cpu::FASTNTK_ISA
