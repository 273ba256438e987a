#include "engine/cpu/row_norm.h"

#include <algorithm>

#include "engine/cpu/isa/row_norm.h"
#include "engine/cpu/optional_operand.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

const RowNormLoops<float>& loops_of(float) { return FASTNTK_DISPATCH(row_norm_table).float32; }
const RowNormLoops<double>& loops_of(double) { return FASTNTK_DISPATCH(row_norm_table).float64; }

// The distance between the coefficients of one sample and the next.
int64_t step_of(const Tensor* coefficient) {
  return coefficient && coefficient->extent(0) != 1 ? coefficient->extent(1) : 0;
}

}  // namespace

void row_norm(const Backend::RowNorm& k) {
  for_floating(k.x.dtype(), "a norm of rows", [&](auto zero) {
    using T = decltype(zero);
    const int64_t N = k.x.extent(0), R = k.x.extent(1), D = k.x.extent(2);
    const T *const x = k.x.data<T>(), *const a = data_or_null<T>(k.a), *const b = data_or_null<T>(k.b);
    T *const y = k.y.mutable_data<T>(), *const mean = mutable_or_null<T>(k.mean),
             *const rstd = mutable_or_null<T>(k.rstd);
    parallel_ranges(N * R, grain(D), [&](int64_t from, int64_t to) {
      for (int64_t next; from < to; from = next) {
        const int64_t n = from / R;
        next = std::min(to, (n + 1) * R);
        loops_of(zero).forward(next - from, D, k.epsilon, k.centre, x + from * D, offset(a, n * step_of(k.a)),
                               offset(b, n * step_of(k.b)), y + from * D, offset(mean, from), offset(rstd, from));
      }
    });
  });
}

void row_norm_core(const Backend::RowNormCore& k) {
  for_floating(k.t.dtype(), "a norm of rows", [&](auto zero) {
    using T = decltype(zero);
    const int64_t K = k.t.extent(0), N = k.t.extent(1), R = k.t.extent(2), D = k.t.extent(3);
    const T *const t = k.t.data<T>(), *const x = k.x.data<T>(), *const mean = data_or_null<T>(k.mean),
                   *const rstd = k.rstd.data<T>();
    const T *const before = data_or_null<T>(k.before), *const after = data_or_null<T>(k.after);
    T* const out = k.out.mutable_data<T>();
    parallel_ranges(N * R, grain(K * D), [&](int64_t from, int64_t to) {
      const Buffer scratch(static_cast<size_t>(D) * sizeof(T));
      T* const xhat = scratch.as<T>();
      for (int64_t i = from; i < to; i++) {
        const int64_t n = i / R;
        loops_of(zero).normalise(D, x + i * D, mean ? mean[i] : T(0), rstd[i], xhat);
        for (int64_t c = 0; c < K; c++)
          loops_of(zero).core(D, mean != nullptr, xhat, rstd[i], offset(before, n * step_of(k.before)),
                              offset(after, n * step_of(k.after)), t + (c * N * R + i) * D, out + (c * N * R + i) * D);
      }
    });
  });
}

void row_norm_sums(const Backend::RowNormSums& k) {
  for_floating(k.t.dtype(), "a norm of rows", [&](auto zero) {
    using T = decltype(zero);
    const int64_t K = k.t.extent(0), N = k.t.extent(1), R = k.t.extent(2), D = k.t.extent(3);
    const T *const t = k.t.data<T>(), *const x = data_or_null<T>(k.x), *const mean = data_or_null<T>(k.mean),
                   *const rstd = data_or_null<T>(k.rstd);
    // Sums come out per sample; a shared coefficient gets their sum over samples, in order, in double.
    const auto per_sample = [&](const Tensor* sum) { return sum && sum->extent(1) == N; };
    const auto scratch = [&](const Tensor* sum) {
      return sum && !per_sample(sum) ? Buffer(static_cast<size_t>(K * N * D) * sizeof(T)) : Buffer();
    };
    const Buffer scratch_sum = scratch(k.sum), scratch_xhat = scratch(k.sum_xhat);
    T* const sum = per_sample(k.sum) ? k.sum->mutable_data<T>() : scratch_sum.as<T>();
    T* const sum_xhat = per_sample(k.sum_xhat) ? k.sum_xhat->mutable_data<T>() : scratch_xhat.as<T>();
    parallel_ranges(K * N, grain(R * D), [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) {
        const int64_t row = i % N * R;
        loops_of(zero).sums(R, D, t + i * R * D, offset(x, row * D), offset(mean, row), offset(rstd, row),
                            offset(sum, i * D), offset(sum_xhat, i * D));
      }
    });
    const auto add_up = [&](Tensor* total, const T* parts) {
      if (!total || per_sample(total)) return;
      T* const out = total->mutable_data<T>();
      for (int64_t i = 0; i < K; i++)
        for (int64_t d = 0; d < D; d++) {
          double s = 0;
          for (int64_t n = 0; n < N; n++) s += static_cast<double>(parts[(i * N + n) * D + d]);
          out[i * D + d] = static_cast<T>(s);
        }
    };
    add_up(k.sum, sum);
    add_up(k.sum_xhat, sum_xhat);
  });
}

}  // namespace fastntk::cpu
