#include "unlearn/weighted_rows.h"

#include <vector>

#include "engine/backend.h"
#include "engine/parallel.h"

namespace fastntk {

Tensor weighted_rows(const Tensor& rows, const Tensor& logits, std::span<const int64_t> labels, const Loss& loss) {
  if (!loss.curvature_factor) return rows;
  const int64_t n = rows.extent(0), C = rows.extent(1), P = rows.extent(2);
  require(
      logits.shape() == Shape({n, C}) && logits.dtype() == DType::float64 && static_cast<int64_t>(labels.size()) == n,
      "rows {} weighted at logits {} with {} labels", rows.describe(), logits.describe(), labels.size());
  const Tensor from = rows.contiguous(), at = logits.contiguous();
  if (rows.device() != Device::cpu) {
    Tensor factors = Tensor::zeros({n, C, C}, DType::float64), out(rows.shape(), DType::float64, rows.device());
    double* const s = factors.mutable_data<double>();
    for (int64_t i = 0; i < n; i++)
      loss.curvature_factor(at.data<double>() + i * C, C, labels[static_cast<size_t>(i)], s + i * C * C);
    backend_of(rows).gemm(factors.to(rows.device()).transpose(1, 2), from.to(DType::float64), out, false);
    return out;
  }
  Tensor weighted = Tensor::zeros(rows.shape(), DType::float64);
  double* const y = weighted.mutable_data<double>();
  for_floating(from.dtype(), "weighted rows", [&](auto zero) {
    using T = decltype(zero);
    const T* const j = from.data<T>();
    parallel_for(n, [&](int64_t i) {
      std::vector<double> factor(static_cast<size_t>(C * C));
      loss.curvature_factor(at.data<double>() + i * C, C, labels[static_cast<size_t>(i)], factor.data());
      for (int64_t out = 0; out < C; out++)
        for (int64_t in = 0; in < C; in++) {
          const double weight = factor[static_cast<size_t>(in * C + out)];
          double* const to_row = y + (i * C + out) * P;
          const T* const from_row = j + (i * C + in) * P;
          for (int64_t p = 0; p < P; p++) to_row[p] += weight * static_cast<double>(from_row[p]);
        }
    });
  });
  return weighted;
}

}  // namespace fastntk
