#include "engine/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fastntk::test {
namespace {

// Calls f(index of the window, value) for every element of every window that is not padding.
template <class F>
void for_each_in_window(const Array& x, const Window& w, const Shape& out, F&& f) {
  for_each_index(out, [&](const Shape& o) {
    for (int64_t ky = 0; ky < w.kernel[0]; ky++)
      for (int64_t kx = 0; kx < w.kernel[1]; kx++) {
        const int64_t y = o[1] * w.stride[0] + ky - w.padding[0], z = o[2] * w.stride[1] + kx - w.padding[1];
        if (y >= 0 && y < x.shape[1] && z >= 0 && z < x.shape[2]) f(o, x({o[0], y, z, o[3]}));
      }
  });
}

// Calls f(output, input, weight) with the positions of the three factors of every product of a convolution of x
// [N, H, W, C] with w [1 or N, O, C / groups, kh, kw].
template <class F>
void for_each_product(const Shape& x, const Shape& w, const ConvolutionShape& g, F&& f) {
  const int64_t inputs = g.in_channels / g.groups, outputs = g.out_channels / g.groups;
  size_t at = 0;
  for_each_index({x[0], g.out_height(), g.out_width(), g.out_channels}, [&](const Shape& o) {
    const int64_t first = o[3] / outputs * inputs, sample = w[0] == 1 ? 0 : o[0];
    for (int64_t ky = 0; ky < g.kernel_height; ky++)
      for (int64_t kx = 0; kx < g.kernel_width; kx++) {
        const int64_t iy = o[1] * g.stride_height + ky * g.dilation_height - g.padding_height;
        const int64_t ix = o[2] * g.stride_width + kx * g.dilation_width - g.padding_width;
        if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) continue;
        for (int64_t i = 0; i < inputs; i++)
          f(at, static_cast<size_t>(((o[0] * g.height + iy) * g.width + ix) * g.in_channels + first + i),
            static_cast<size_t>(
                (((sample * g.out_channels + o[3]) * inputs + i) * g.kernel_height + ky) * g.kernel_width + kx));
      }
    at++;
  });
}

Shape pooled_shape(const Array& x, const Window& w) {
  Shape out = x.shape;
  for (int i = 0; i < 2; i++) out[1 + i] = (x.shape[1 + i] + 2 * w.padding[i] - w.kernel[i]) / w.stride[i] + 1;
  return out;
}

}  // namespace

size_t Array::at(const Shape& index) const {
  int64_t offset = 0;
  const int lead = index.rank() - shape.rank();
  for (int i = 0; i < shape.rank(); i++) offset = offset * shape[i] + (shape[i] == 1 ? 0 : index[lead + i]);
  return static_cast<size_t>(offset);
}

void for_each_index(const Shape& shape, const std::function<void(const Shape&)>& f) {
  Shape index = Shape::filled(shape.rank(), 0);
  for (int64_t n = shape.elements(); n > 0; n--) {
    f(index);
    for (int axis = shape.rank() - 1; axis >= 0 && ++index[axis] == shape[axis]; axis--) index[axis] = 0;
  }
}

Array make(const Shape& shape, const std::function<double(const Shape&)>& f) {
  Array out(shape);
  size_t n = 0;
  for_each_index(shape, [&](const Shape& index) { out.values[n++] = f(index); });
  return out;
}

Array unary(const Array& x, const std::function<double(double)>& f) {
  Array out = x;
  for (double& v : out.values) v = f(v);
  return out;
}

Array binary(const Array& a, const Array& b, const std::function<double(double, double)>& f) {
  Shape shape = a.shape.rank() >= b.shape.rank() ? a.shape : b.shape;
  for (int i = 1; i <= std::min(a.shape.rank(), b.shape.rank()); i++)
    shape[-i] = a.shape[-i] == 1 ? b.shape[-i] : a.shape[-i];
  return make(shape, [&](const Shape& index) { return f(a(index), b(index)); });
}

Array sum_over(const Array& x, const std::vector<int>& axes) {
  Shape shape = x.shape;
  for (const int axis : axes) shape[axis] = 1;
  Array out(shape);
  for_each_index(x.shape, [&](const Shape& index) { out(index) += x(index); });
  return out;
}

Array max_over(const Array& x, int axis) {
  Shape shape = x.shape;
  shape[axis] = 1;
  Array out(shape, -std::numeric_limits<double>::infinity());
  for_each_index(x.shape, [&](const Shape& index) { out(index) = std::max(out(index), x(index)); });
  return out;
}

Array permuted(const Array& x, const std::vector<int>& order) {
  Shape shape = x.shape;
  for (size_t i = 0; i < order.size(); i++) shape[static_cast<int>(i)] = x.shape[order[i]];
  return make(shape, [&](const Shape& index) {
    Shape source = index;
    for (size_t i = 0; i < order.size(); i++) source[order[i]] = index[static_cast<int>(i)];
    return x(source);
  });
}

Array sliced(const Array& x, int axis, int64_t from, int64_t to, int64_t step) {
  Shape shape = x.shape;
  shape[axis] = 0;
  for (int64_t i = from; i < to; i += step) shape[axis]++;
  return make(shape, [&](Shape index) {
    index[axis] = from + index[axis] * step;
    return x(index);
  });
}

Array spread(const Array& x, int axis, int64_t extent, int64_t from, int64_t step) {
  Shape shape = x.shape;
  shape[axis] = extent;
  return make(shape, [&](Shape index) {
    const int64_t distance = index[axis] - from;
    index[axis] = distance / step;
    return distance >= 0 && distance % step == 0 && index[axis] < x.shape[axis] ? x(index) : 0;
  });
}

Array concatenated(const std::vector<Array>& parts, int axis) {
  Shape shape = parts[0].shape;
  for (size_t i = 1; i < parts.size(); i++) shape[axis] += parts[i].shape[axis];
  return make(shape, [&](Shape index) {
    size_t part = 0;
    while (index[axis] >= parts[part].shape[axis]) index[axis] -= parts[part++].shape[axis];
    return parts[part](index);
  });
}

Array product(const Array& a, const Array& b) {
  // The sum over k of a[…, m, k, 1] b[…, 1, k, n].
  Array left = a, right = b;
  left.shape = a.shape + Shape{1};
  right.shape = b.shape.leading(b.shape.rank() - 2) + Shape{1} + b.shape.trailing(2);
  Array out = sum_over(binary(left, right, std::multiplies<>()), {-2});
  out.shape = out.shape.leading(out.shape.rank() - 2) + Shape{out.shape[-1]};
  return out;
}

Array convolved(const Array& x, const Array& w, const ConvolutionShape& g) {
  Array out({x.shape[0], g.out_height(), g.out_width(), g.out_channels});
  for_each_product(x.shape, w.shape, g,
                   [&](size_t o, size_t i, size_t k) { out.values[o] += x.values[i] * w.values[k]; });
  return out;
}
Array convolved_transposed_input(const Array& u, const Array& w, const Shape& x, const ConvolutionShape& g) {
  Array out(x);
  for_each_product(x, w.shape, g, [&](size_t o, size_t i, size_t k) { out.values[i] += u.values[o] * w.values[k]; });
  return out;
}
Array convolved_transposed_weight(const Array& x, const Array& u, const Shape& w, const ConvolutionShape& g) {
  Array out(w);
  for_each_product(x.shape, w, g, [&](size_t o, size_t i, size_t k) { out.values[k] += x.values[i] * u.values[o]; });
  return out;
}

Array log_sum_exp(const Array& x) {
  const Array largest = max_over(x, -1);
  const Array sum = sum_over(binary(x, largest, [](double a, double m) { return std::exp(a - m); }), {-1});
  return binary(sum, largest, [](double s, double m) { return std::log(s) + m; });
}

Array pooled_mean(const Array& x, const Window& w) {
  Array out(pooled_shape(x, w));
  const double area = static_cast<double>(w.kernel[0] * w.kernel[1]);
  for_each_in_window(x, w, out.shape, [&](const Shape& o, double value) { out(o) += value / area; });
  return out;
}

Array pooled_max(const Array& x, const Window& w) {
  Array out(pooled_shape(x, w), -std::numeric_limits<double>::infinity());
  for_each_in_window(x, w, out.shape, [&](const Shape& o, double value) { out(o) = std::max(out(o), value); });
  return out;
}

Array channel_mean(const Array& x) {
  Array out({x.shape[-1]});
  const double count = static_cast<double>(x.values.size()) / static_cast<double>(out.values.size());
  for_each_index(x.shape, [&](const Shape& index) { out({index[-1]}) += x(index) / count; });
  return out;
}

Array channel_variance(const Array& x) {
  return channel_mean(binary(x, channel_mean(x), [](double a, double m) { return (a - m) * (a - m); }));
}

}  // namespace fastntk::test
