#include "engine/cpu/channel_affine.h"

#include <algorithm>

#include "engine/cpu/isa/channel_affine.h"
#include "engine/cpu/optional_operand.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

const ChannelAffineLoops<float>& loops_of(float) { return FASTNTK_DISPATCH(channel_affine_table).float32; }
const ChannelAffineLoops<double>& loops_of(double) { return FASTNTK_DISPATCH(channel_affine_table).float64; }

}  // namespace

void channel_affine(const Backend::ChannelAffine& k) {
  for_floating(k.x.dtype(), "batch normalisation", [&](auto zero) {
    using T = decltype(zero);
    const int64_t N = k.x.extent(0), P = k.x.extent(1), C = k.x.extent(2), image = P * C;
    const int64_t step = k.a.extent(0) == 1 ? 0 : C;
    const T *const x = k.x.data<T>(), *const mean = k.mean.data<T>(), *const a = k.a.data<T>(),
                   *const b = k.b.data<T>();
    const T* const residual = data_or_null<T>(k.residual);
    T* const y = k.y.mutable_data<T>();
    parallel_ranges(N, grain(image), [&](int64_t from, int64_t to) {
      for (int64_t n = from; n < to; n++)
        loops_of(zero).forward(P, C, x + n * image, mean, a + n * step, b + n * step, offset(residual, n * image),
                               k.relu, y + n * image);
    });
  });
}

void channel_affine_transposed(const Backend::ChannelAffineTransposed& k) {
  for_floating(k.cotangent.dtype(), "batch normalisation", [&](auto zero) {
    using T = decltype(zero);
    const Shape& s = k.cotangent.shape();
    const int64_t K = s[0], N = s[1], P = s[2], C = s[3], image = P * C;
    const T* const c = k.cotangent.data<T>();
    const T *const y = data_or_null<T>(k.y), *const x = data_or_null<T>(k.x), *const mean = data_or_null<T>(k.mean);
    const T* const a = data_or_null<T>(k.a);
    const int64_t step = k.a && k.a->extent(0) != 1 ? C : 0;
    T *const masked = mutable_or_null<T>(k.masked), *const dx = mutable_or_null<T>(k.dx);
    // Sums come out per sample; a shared coefficient gets their sum over samples, in order, in double.
    const auto per_sample = [&](const Tensor* sum) { return sum && sum->extent(1) == N; };
    const auto scratch = [&](const Tensor* sum) {
      return sum && !per_sample(sum) ? Buffer(static_cast<size_t>(K * N * C) * sizeof(T)) : Buffer();
    };
    const Buffer scratch_g = scratch(k.sum_g), scratch_gx = scratch(k.sum_gx);
    T* const sum_g = per_sample(k.sum_g) ? k.sum_g->mutable_data<T>() : scratch_g.as<T>();
    T* const sum_gx = per_sample(k.sum_gx) ? k.sum_gx->mutable_data<T>() : scratch_gx.as<T>();
    parallel_ranges(K * N, grain(image), [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) {
        const int64_t n = i % N;
        loops_of(zero).transposed(P, C, c + i * image, offset(y, n * image), offset(x, n * image), mean,
                                  offset(a, n * step), offset(sum_g, i * C), offset(sum_gx, i * C),
                                  offset(masked, i * image), offset(dx, i * image));
      }
    });
    const auto add_up = [&](Tensor* sum, const T* parts) {
      if (!sum || per_sample(sum)) return;
      T* const out = sum->mutable_data<T>();
      for (int64_t i = 0; i < K; i++)
        for (int64_t channel = 0; channel < C; channel++) {
          double total = 0;
          for (int64_t n = 0; n < N; n++) total += static_cast<double>(parts[(i * N + n) * C + channel]);
          out[i * C + channel] = static_cast<T>(total);
        }
    };
    add_up(k.sum_g, sum_g);
    add_up(k.sum_gx, sum_gx);
  });
}

void channel_affine_transposed_batch(const Backend::ChannelAffineTransposedBatch& k) {
  for_floating(k.cotangent.dtype(), "batch normalisation", [&](auto zero) {
    using T = decltype(zero);
    const Shape& s = k.cotangent.shape();
    const int64_t K = s[0], N = s[1], P = s[2], C = s[3], image = P * C;
    const T *const c = k.cotangent.data<T>(), *const y = data_or_null<T>(k.y), *const x = k.x.data<T>();
    const T *const mean = k.mean.data<T>(), *const a = k.a.data<T>(), *const slope = k.slope.data<T>(),
                   *const d = k.constant.data<T>();
    T* const dx = k.dx.mutable_data<T>();
    parallel_ranges(K * N, grain(image), [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++)
        loops_of(zero).transposed_batch(P, C, c + i * image, offset(y, i % N * image), x + i % N * image, mean, a,
                                        slope + i / N * C, d + i / N * C, dx + i * image);
    });
  });
}

void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance) {
  for_floating(x.dtype(), "batch normalisation", [&](auto zero) {
    using T = decltype(zero);
    constexpr int64_t chunk = 1024;  // rows; fixed, because the order of the sum depends on it
    const int64_t rows = x.extent(0), C = x.extent(1), chunks = (rows + chunk - 1) / chunk;
    const T* const in = x.data<T>();
    const Buffer parts(static_cast<size_t>(2 * chunks * C) * sizeof(double));
    double* const sums = parts.as<double>();
    parallel_for(chunks, [&](int64_t i) {
      loops_of(zero).moments(std::min(chunk, rows - i * chunk), C, in + i * chunk * C, in, sums + 2 * i * C,
                             sums + (2 * i + 1) * C);
    });
    T *const m = mean.mutable_data<T>(), *const v = variance.mutable_data<T>();
    for (int64_t c = 0; c < C; c++) {
      double s = 0, q = 0;
      for (int64_t i = 0; i < chunks; i++) s += sums[2 * i * C + c], q += sums[(2 * i + 1) * C + c];
      s /= static_cast<double>(rows), q /= static_cast<double>(rows);
      m[c] = static_cast<T>(static_cast<double>(in[c]) + s);  // the moments are about the first row
      const double variance_of_c = q - s * s;
      v[c] = static_cast<T>(variance_of_c < 0 ? 0 : variance_of_c);  // by rounding; not a number stays one
    }
  });
}

}  // namespace fastntk::cpu
