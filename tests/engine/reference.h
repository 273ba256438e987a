// Naive float64 references: plain vectors, one loop per definition, nothing of the engine's kernels. Slow on purpose.
#pragma once
#include <functional>
#include <vector>

#include "engine/convolution_shape.h"
#include "engine/shape.h"

namespace fastntk::test {

/// Row-major float64 numbers under a shape.
struct Array {
  Shape shape;
  std::vector<double> values;

  Array() = default;
  explicit Array(const Shape& shape, double value = 0)
      : shape(shape), values(static_cast<size_t>(shape.elements()), value) {}
  /// The element at `index`, which is right-aligned; axes of extent 1 broadcast.
  double operator()(const Shape& index) const { return values[at(index)]; }
  double& operator()(const Shape& index) { return values[at(index)]; }

 private:
  size_t at(const Shape& index) const;
};

/// Calls f(index) for every index of a shape, in row-major order.
void for_each_index(const Shape& shape, const std::function<void(const Shape&)>& f);
/// The array whose element at `index` is f(index).
Array make(const Shape& shape, const std::function<double(const Shape&)>& f);

/// f of every element.
Array unary(const Array& x, const std::function<double(double)>& f);
/// f of every pair of elements, broadcasting.
Array binary(const Array& a, const Array& b, const std::function<double(double, double)>& f);

/// Axes may be negative in all of these. Reduced axes stay with extent 1.
Array sum_over(const Array& x, const std::vector<int>& axes);
Array max_over(const Array& x, int axis);
/// Axis i of the result is axis order[i] of x.
Array permuted(const Array& x, const std::vector<int>& order);
Array sliced(const Array& x, int axis, int64_t from, int64_t to, int64_t step);
/// x at from, from + step, … of an axis of extent `extent` of zeros.
Array spread(const Array& x, int axis, int64_t extent, int64_t from, int64_t step);
Array concatenated(const std::vector<Array>& parts, int axis);

/// a [batch…, m, k] b [batch…, k, n], batch axes broadcasting.
Array product(const Array& a, const Array& b);
/// x [N, H, W, C] * w [1 or N, O, C / groups, kh, kw].
Array convolved(const Array& x, const Array& w, const ConvolutionShape& geometry);
/// The transposes of that map: of u [N, OH, OW, O] in x, and in w.
Array convolved_transposed_input(const Array& u, const Array& w, const Shape& x, const ConvolutionShape& geometry);
Array convolved_transposed_weight(const Array& x, const Array& u, const Shape& w, const ConvolutionShape& geometry);

/// log Σ exp over the last axis, which stays with extent 1.
Array log_sum_exp(const Array& x);
/// The mean or the maximum over windows of x [N, H, W, C]; padding counts as zeros in the mean, never as the maximum.
struct Window {
  int64_t kernel[2], stride[2], padding[2];
};
Array pooled_mean(const Array& x, const Window& window);
Array pooled_max(const Array& x, const Window& window);
/// The mean and the biased variance of x [N, …, C] by channel, each [C].
Array channel_mean(const Array& x);
Array channel_variance(const Array& x);

}  // namespace fastntk::test
