#include "engine/ops/resize.h"

#include <algorithm>
#include <cmath>

#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

double triangle(double x) { return std::max(0.0, 1 - std::abs(x)); }

double cubic(double x, double a) {
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

}  // namespace

Tensor resize_matrix(int64_t in, int64_t out, const ResizeOptions& options) {
  const auto [interpolation, antialias] = options;
  require(in > 0 && out > 0, "resize: an axis of extent {} cannot become one of {}", in, out);
  require(!(antialias && interpolation == Interpolation::nearest), "resize: nearest has no antialiasing");
  Tensor matrix = Tensor::zeros({out, in}, DType::float64);
  double* row = matrix.mutable_data<double>();
  const double step = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = antialias ? std::max(step, 1.0) : 1;
  const double radius = (interpolation == Interpolation::bicubic ? 2 : 1) * stretch;
  const double a = antialias ? -0.5 : -0.75;
  for (int64_t i = 0; i < out; i++, row += in) {
    if (interpolation == Interpolation::nearest) {
      row[i * in / out] = 1;
      continue;
    }
    const double centre = (static_cast<double>(i) + 0.5) * step - 0.5;  // in pixels of the input
    double sum = 0;
    for (auto j = static_cast<int64_t>(std::ceil(centre - radius)); static_cast<double>(j) <= centre + radius; j++) {
      const bool outside = j < 0 || j >= in;
      if (outside && antialias) continue;
      const double x = (static_cast<double>(j) - centre) / stretch;
      const double weight = interpolation == Interpolation::bilinear ? triangle(x) : cubic(x, a);
      row[std::clamp<int64_t>(j, 0, in - 1)] += weight;
      sum += weight;
    }
    if (antialias)
      for (int64_t j = 0; j < in; j++) row[j] /= sum;
  }
  return matrix;
}

Variable resize(const Variable& x, int64_t height, int64_t width, const ResizeOptions& options) {
  require(x.rank() >= 4, "resize needs images [N, H, W, C], got {}", x.shape().str());
  const int64_t from_height = x.extent(-3), from_width = x.extent(-2), channels = x.extent(-1);
  const Shape lead = x.shape().leading(x.rank() - 3);
  const auto matrix = [&](int64_t from, int64_t to, const Shape& batch) {
    return resize_matrix(from, to, options).to(x.dtype()).to(x.value.device()).reshape(batch + Shape{to, from});
  };
  Variable y = x;
  if (height != from_height) {
    const Variable rows = reshape(y, lead + Shape{from_height, from_width * channels});
    y = reshape(matmul(matrix(from_height, height, {1}), rows), lead + Shape{height, from_width, channels});
  }
  return width == from_width ? y : matmul(matrix(from_width, width, {1, 1}), y);
}

}  // namespace fastntk
