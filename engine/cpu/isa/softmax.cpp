#include "engine/cpu/isa/softmax.h"

#include "engine/cpu/isa/vector_tail.h"

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

// The largest element, so that subtracting it lets no exponential overflow; 0 where that is infinite.
template <class T>
FASTNTK_INLINE T largest(int64_t n, const T* x) {
  const T none = static_cast<T>(-__builtin_inf());
  Vector<T> m = splat(none);
  const auto take = [&](Vector<T> v) { m = v > m ? v : m; };
  for_registers<T>(
      n, [&](int64_t i) { take(load(x + i)); }, [&](int64_t i, int64_t count) { take(load_some(x + i, count, none)); });
  const T most = largest_of_lanes(m);
  return __builtin_isinf(most) ? T(0) : most;
}

// Σ exp(x − m). If `keep`, what is summed goes to y, but for the last elements that fill no register: those to `tail`.
template <bool keep, class T>
FASTNTK_INLINE T sum_of_exponentials(int64_t n, const T* x, T m, T* y, Vector<T>& tail) {
  Vector<T> sum = {};
  for_registers<T>(
      n,
      [&](int64_t i) {
        const Vector<T> e = exp(load(x + i) - m);
        if constexpr (keep) store(y + i, e);
        sum += e;
      },
      [&](int64_t i, int64_t count) {
        tail = exp(load_some(x + i, count, static_cast<T>(-__builtin_inf())) - m);  // exp(−∞) = 0 behind the end
        sum += tail;
      });
  return sum_of_lanes(sum);
}
template <class T>
FASTNTK_INLINE T log_sum_of_exponentials(int64_t n, const T* x, T m) {
  Vector<T> tail = {};
  return log_of(sum_of_exponentials<false, T>(n, x, m, nullptr, tail));
}

// y[i] = f(a[i], b[i])
template <class T, class F>
FASTNTK_INLINE void map_row(int64_t n, const T* a, const T* b, T* y, F&& f) {
  for_registers<T>(
      n, [&](int64_t i) { store(y + i, f(load(a + i), load(b + i))); },
      [&](int64_t i, int64_t count) {
        store_some(y + i, count, f(load_some(a + i, count, T(0)), load_some(b + i, count, T(0))));
      });
}

template <class T>
void softmax(int64_t rows, int64_t n, const T* x, T* __restrict y) {
  for (int64_t row = 0; row < rows; row++, x += n, y += n) {
    Vector<T> tail = {};
    const T scale = T(1) / sum_of_exponentials<true>(n, x, largest(n, x), y, tail);
    for_registers<T>(
        n, [&](int64_t i) { store(y + i, load(y + i) * scale); },
        [&](int64_t i, int64_t count) { store_some(y + i, count, tail * scale); });
  }
}

template <class T>
void log_softmax(int64_t rows, int64_t n, const T* x, T* __restrict y) {
  for (int64_t row = 0; row < rows; row++, x += n, y += n) {
    const T m = largest(n, x), log_sum = log_sum_of_exponentials(n, x, m);
    map_row(n, x, x, y, [&](Vector<T> v, Vector<T>) { return (v - m) - log_sum; });
  }
}

template <class T>
void log_sum_exp(int64_t rows, int64_t n, const T* x, T* __restrict y) {
  for (int64_t row = 0; row < rows; row++, x += n) {
    const T m = largest(n, x);
    y[row] = m + log_sum_of_exponentials(n, x, m);
  }
}

template <class T>
FASTNTK_INLINE T dot(int64_t n, const T* a, const T* b) {
  Vector<T> sum = {};
  for_registers<T>(
      n, [&](int64_t i) { sum += load(a + i) * load(b + i); },
      [&](int64_t i, int64_t count) { sum += load_some(a + i, count, T(0)) * load_some(b + i, count, T(0)); });
  return sum_of_lanes(sum);
}

template <class T>
FASTNTK_INLINE T sum_of(int64_t n, const T* a) {
  Vector<T> sum = {};
  for_registers<T>(
      n, [&](int64_t i) { sum += load(a + i); },
      [&](int64_t i, int64_t count) { sum += load_some(a + i, count, T(0)); });
  return sum_of_lanes(sum);
}

template <class T>
void softmax_map(int64_t n, const T* p, const T* t, T* __restrict out) {
  const T mean = dot(n, p, t);
  map_row(n, p, t, out, [&](Vector<T> a, Vector<T> b) { return a * (b - mean); });
}

template <class T>
void log_softmax_map(int64_t n, const T* p, const T* t, T* __restrict out) {
  const T mean = dot(n, p, t);
  map_row(n, t, t, out, [&](Vector<T> a, Vector<T>) { return a - mean; });
}

template <class T>
void log_softmax_transposed(int64_t n, const T* p, const T* t, T* __restrict out) {
  const T total = sum_of(n, t);
  map_row(n, p, t, out, [&](Vector<T> a, Vector<T> b) { return b - a * total; });
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
