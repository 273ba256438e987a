#include "engine/cpu/isa/softmax.h"

#include "engine/cpu/isa/vector_math.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

float log_of(float x) { return __builtin_logf(x); }
double log_of(double x) { return __builtin_log(x); }

// Calls full(i) where a whole register is left at element i of n, then rest(i, how many) if fewer are.
template <class T, class Full, class Rest>
FASTNTK_INLINE void for_registers(int64_t n, Full&& full, Rest&& rest) {
  int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) full(i);
  if (i < n) rest(i, n - i);
}

// The first `count` elements at p, and `filler` behind them.
template <class T>
FASTNTK_INLINE Vector<T> load_some(const T* p, int64_t count, T filler) {
  T part[lanes<T>];
  for (int j = 0; j < lanes<T>; j++) part[j] = filler;
  for (int64_t j = 0; j < count; j++) part[j] = p[j];
  return load(part);
}
template <class T>
FASTNTK_INLINE void store_some(T* p, int64_t count, Vector<T> v) {
  T part[lanes<T>];
  store(part, v);
  for (int64_t j = 0; j < count; j++) p[j] = part[j];
}

template <class T>
FASTNTK_INLINE T sum_of_lanes(Vector<T> v) {
  T sum = v[0];
  for (int j = 1; j < lanes<T>; j++) sum += v[j];
  return sum;
}

// The largest element, so that subtracting it lets no exponential overflow; 0 where that is infinite.
template <class T>
FASTNTK_INLINE T largest(int64_t n, const T* x) {
  const T none = static_cast<T>(-__builtin_inf());
  Vector<T> m = splat(none);
  const auto take = [&](Vector<T> v) { m = v > m ? v : m; };
  for_registers<T>(
      n, [&](int64_t i) { take(load(x + i)); }, [&](int64_t i, int64_t count) { take(load_some(x + i, count, none)); });
  T most = m[0];
  for (int j = 1; j < lanes<T>; j++) most = m[j] > most ? m[j] : most;
  return __builtin_isinf(most) ? T(0) : most;
}

// Σ exp(x − m); what is summed also goes to y if `keep`.
template <bool keep, class T>
FASTNTK_INLINE T sum_of_exponentials(int64_t n, const T* x, T m, T* y) {
  Vector<T> sum = {};
  for_registers<T>(
      n,
      [&](int64_t i) {
        const Vector<T> e = exp(load(x + i) - m);
        if constexpr (keep) store(y + i, e);
        sum += e;
      },
      [&](int64_t i, int64_t count) {
        const Vector<T> e = exp(load_some(x + i, count, static_cast<T>(-__builtin_inf())) - m);
        if constexpr (keep) store_some<T>(y + i, count, e);
        sum += e;  // exp(−∞) = 0 behind the end
      });
  return sum_of_lanes<T>(sum);
}

template <class T>
void softmax(int64_t rows, int64_t n, const T* x, T* __restrict y) {
  for (int64_t row = 0; row < rows; row++, x += n, y += n) {
    const T scale = T(1) / sum_of_exponentials<true>(n, x, largest(n, x), y);
    for (int64_t i = 0; i < n; i++) y[i] *= scale;
  }
}

template <class T>
void log_softmax(int64_t rows, int64_t n, const T* x, T* __restrict y) {
  for (int64_t row = 0; row < rows; row++, x += n, y += n) {
    const T m = largest(n, x), log_sum = log_of(sum_of_exponentials<false, T>(n, x, m, nullptr));
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - m) - log_sum;
  }
}

template <class T>
void log_sum_exp(int64_t rows, int64_t n, const T* x, T* __restrict y) {
  for (int64_t row = 0; row < rows; row++, x += n) {
    const T m = largest(n, x);
    y[row] = m + log_of(sum_of_exponentials<false, T>(n, x, m, nullptr));
  }
}

template <class T>
FASTNTK_INLINE T dot(int64_t n, const T* a, const T* b) {
  Vector<T> sum = {};
  for_registers<T>(
      n, [&](int64_t i) { sum += load(a + i) * load(b + i); },
      [&](int64_t i, int64_t count) { sum += load_some<T>(a + i, count, 0) * load_some<T>(b + i, count, 0); });
  return sum_of_lanes<T>(sum);
}

template <class T>
FASTNTK_INLINE T sum_of(int64_t n, const T* a) {
  Vector<T> sum = {};
  for_registers<T>(
      n, [&](int64_t i) { sum += load(a + i); },
      [&](int64_t i, int64_t count) { sum += load_some<T>(a + i, count, 0); });
  return sum_of_lanes<T>(sum);
}

template <class T>
void softmax_map(int64_t n, const T* p, const T* t, T* __restrict out) {
  const T mean = dot(n, p, t);
  for (int64_t i = 0; i < n; i++) out[i] = p[i] * (t[i] - mean);
}

template <class T>
void log_softmax_map(int64_t n, const T* p, const T* t, T* __restrict out) {
  const T mean = dot(n, p, t);
  for (int64_t i = 0; i < n; i++) out[i] = t[i] - mean;
}

template <class T>
void log_softmax_transposed(int64_t n, const T* p, const T* t, T* __restrict out) {
  const T total = sum_of(n, t);
  for (int64_t i = 0; i < n; i++) out[i] = t[i] - p[i] * total;
}

template <class T>
constexpr SoftmaxRows<T> row_loops() {
  return {{softmax<T>, log_softmax<T>, log_sum_exp<T>},
          {softmax_map<T>, log_softmax_map<T>, log_softmax_transposed<T>}};
}

}  // namespace

extern const SoftmaxTable softmax_table;
const SoftmaxTable softmax_table = {row_loops<float>(), row_loops<double>()};

}  // namespace fastntk::cpu::FASTNTK_ISA
