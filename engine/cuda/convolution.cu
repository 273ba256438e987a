// Convolution. With one set of weights for many channels: implicit_convolution.cu. Otherwise matrix products with
// unfolded images, a few samples at a time: U [N, G, P, I kh kw] holds for every output position the inputs that its
// window covers, in the order of the weights [G, O, I kh kw]. G groups, P positions, O and I channels of a group.
#include <optional>

#include "engine/cpu/convolution.h"
#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"
#include "engine/precision.h"

namespace fastntk::FASTNTK_GPU {

/// What the threads that unfold and fold have to know.
struct Geometry {
  ConvolutionShape shape;
  Divisor out_height, out_width, height, width, groups, in_channels, kernel_height, kernel_width, stride_height,
      stride_width;
  Divisor channels, columns;  // channels of a group, and columns of U

  explicit Geometry(const ConvolutionShape& s)
      : shape((cpu::require_convolution(s), s)),
        out_height(s.out_height()),
        out_width(s.out_width()),
        height(s.height),
        width(s.width),
        groups(s.groups),
        in_channels(s.in_channels),
        kernel_height(s.kernel_height),
        kernel_width(s.kernel_width),
        stride_height(s.stride_height),
        stride_width(s.stride_width),
        channels(s.in_channels / s.groups),
        columns(s.in_channels / s.groups * s.kernel_height * s.kernel_width) {}
  int64_t positions() const { return out_height.value() * out_width.value(); }
  int64_t out_channels() const { return shape.out_channels / shape.groups; }
  /// Without windows that overlap or leave anything out, U is the images themselves.
  bool pointwise() const {
    const ConvolutionShape& s = shape;
    return s.kernel_height == 1 && s.kernel_width == 1 && s.stride_height == 1 && s.stride_width == 1 &&
           s.padding_height == 0 && s.padding_width == 0 && s.groups == 1;
  }
};

// Samples whose U is made at a time: a function of the problem alone.
int64_t samples_at_a_time(const Geometry& g, int64_t images_of_a_sample) {
  constexpr int64_t most_elements = int64_t{1} << 24;
  return std::max<int64_t>(
      1, most_elements / std::max<int64_t>(1, g.shape.groups * g.positions() * g.columns.value() * images_of_a_sample));
}

template <class T>
void unfold_typed(Geometry g, const Tensor& x, Tensor& u) {
  const T* const in = elements<T>(x);
  T* const out = elements_to_write<T>(u);
  for_each(u.elements(), [=] __device__(int64_t i) {
    const ConvolutionShape& s = g.shape;
    const int64_t row = i / g.columns, column = i % g.columns;
    const int64_t kx = column % g.kernel_width, ky = column / g.kernel_width % g.kernel_height;
    const int64_t c = column / g.kernel_width / g.kernel_height;
    const int64_t ox = row % g.out_width, line = row / g.out_width, oy = line % g.out_height;
    const int64_t group = line / g.out_height % g.groups, image = line / g.out_height / g.groups;
    const int64_t iy = oy * s.stride_height - s.padding_height + ky * s.dilation_height;
    const int64_t ix = ox * s.stride_width - s.padding_width + kx * s.dilation_width;
    const bool inside = iy >= 0 && iy < s.height && ix >= 0 && ix < s.width;
    out[i] =
        inside ? in[((image * s.height + iy) * s.width + ix) * s.in_channels + group * g.channels.value() + c] : T(0);
  });
}

// The transpose of unfold: each pixel adds up where windows cover it, in a fixed order.
template <class T>
void fold_typed(Geometry g, const Tensor& u, Tensor& x) {
  const T* const in = elements<T>(u);
  T* const out = elements_to_write<T>(x);
  for_each(x.elements(), [=] __device__(int64_t i) {
    const ConvolutionShape& s = g.shape;
    const int64_t channel = i % g.in_channels, pixel = i / g.in_channels, ix = pixel % g.width;
    const int64_t iy = pixel / g.width % g.height, image = pixel / g.width / g.height;
    const int64_t group = channel / g.channels, c = channel % g.channels;
    T sum = 0;
    for (int64_t ky = 0; ky < s.kernel_height; ky++) {
      const int64_t y = iy + s.padding_height - ky * s.dilation_height;
      if (y < 0 || y % g.stride_height != 0 || y / g.stride_height >= g.out_height.value()) continue;
      for (int64_t kx = 0; kx < s.kernel_width; kx++) {
        const int64_t x = ix + s.padding_width - kx * s.dilation_width;
        if (x < 0 || x % g.stride_width != 0 || x / g.stride_width >= g.out_width.value()) continue;
        const int64_t line = (image * s.groups + group) * g.out_height.value() + y / g.stride_height;
        const int64_t row = line * g.out_width.value() + x / g.stride_width;
        sum += in[row * g.columns.value() + (c * s.kernel_height + ky) * s.kernel_width + kx];
      }
    }
    out[i] = sum;
  });
}

// w [lead…, 1 or N, O, I, kh, kw] as [O, I, kh, kw] if that is one set of weights, from images x to as many y or from y
// to x, and tiles serve: they are for one group of many channels, in full precision. Images of which nothing overlaps
// need no unfolding. A choice by shapes of one sample.
std::optional<Tensor> weights_for_tiles(const Geometry& g, const Tensor& w, const Tensor& x, const Tensor& y) {
  constexpr int64_t many = 32;
  require(linear_precision() != Precision::bf16, "convolutions in bf16 are for the CPU");
  if (g.shape.groups != 1 || g.pointwise() || std::min(g.shape.in_channels, g.shape.out_channels) < many) return {};
  if (w.dtype() == DType::float32 && linear_precision() == Precision::tf32) return {};
  if (x.shape().leading(x.rank() - 3) != y.shape().leading(y.rank() - 3)) return {};
  Tensor one = w;
  for (; one.rank() > 4; one = one.select(0, 0))
    if (one.extent(0) != 1 && one.strides()[0] != 0) return {};
  return one;
}

// x [lead…, N, H, W, C] as U [lead…, N, G, P, columns].
Tensor unfold(const Geometry& g, const Tensor& x) {
  const Shape lead = x.shape().leading(x.rank() - 3);
  const Tensor packed = x.contiguous();
  const Shape shape = lead + Shape{g.shape.groups, g.positions(), g.columns.value()};
  if (g.pointwise()) return packed.reshape(shape);
  Tensor u(shape, x.dtype(), x.device());
  for_floating(x.dtype(), "conv2d", [&](auto zero) { unfold_typed<decltype(zero)>(g, packed, u); });
  return u;
}

// y [lead…, N, OH, OW, O] as [lead…, N, G, P, O of a group], a view of contiguous elements.
Tensor by_group(const Geometry& g, const Tensor& y) {
  const Shape lead = y.shape().leading(y.rank() - 3);
  return y.contiguous().reshape(lead + Shape{g.positions(), g.shape.groups, g.out_channels()}).transpose(-3, -2);
}

// w [lead…, 1 or N, O, I, kh, kw] as [lead…, 1 or N, G, O of a group, columns].
Tensor by_group_weights(const Geometry& g, const Tensor& w) {
  const bool repeated = w.extent(-5) > 1 && w.strides()[-5] == 0;
  const Tensor once = repeated ? w.slice(-5, 0, 1) : w;
  return once.contiguous().reshape(once.shape().leading(w.rank() - 4) +
                                   Shape{g.shape.groups, g.out_channels(), g.columns.value()});
}

// Calls body(from, to) for the samples [0, N) of a tensor [lead…, N, …], `rank` axes from N on, some at a time.
template <class Body>
void for_samples(const Geometry& g, const Tensor& images, Body&& body) {
  const int64_t N = images.extent(-4);
  const int64_t some = samples_at_a_time(g, images.shape().leading(images.rank() - 4).elements());
  for (int64_t from = 0; from < N; from += some) body(from, std::min(N, from + some));
}

Tensor samples_of(const Tensor& t, int axis, int64_t from, int64_t to) {
  return t.extent(axis) == 1 ? t : t.slice(axis, from, to);
}

// Writes `source` to a view of another tensor.
void write(Tensor view, const Tensor& source) { copy(source, view); }

void convolution(const ConvolutionShape& shape, const Tensor& x, const Tensor& w, Tensor& y) {
  if (y.elements() == 0) return;
  const Geometry g(shape);
  if (const auto one = weights_for_tiles(g, w, x, y)) return implicit_convolution(shape, false, x, *one, y);
  const Tensor weights = by_group_weights(g, w).transpose(-2, -1);
  Tensor out = by_group(g, y);
  for_samples(g, x, [&](int64_t from, int64_t to) {
    const Tensor u = unfold(g, x.slice(-4, from, to));
    Tensor part = out.slice(-4, from, to);
    gemm(u, samples_of(weights, -4, from, to), part, true);
  });
}

void convolution_input_gradient(const ConvolutionShape& shape, const Tensor& dy, const Tensor& w, Tensor& dx) {
  if (dx.elements() == 0) return;
  const Geometry g(shape);
  if (const auto one = weights_for_tiles(g, w, dx, dy)) return implicit_convolution(shape, true, dy, *one, dx);
  const Tensor weights = by_group_weights(g, w), cotangent = by_group(g, dy);
  for_samples(g, dx, [&](int64_t from, int64_t to) {
    const Tensor target = dx.slice(-4, from, to);
    Tensor u(target.shape().leading(dx.rank() - 3) + Shape{shape.groups, g.positions(), g.columns.value()}, dx.dtype(),
             device);
    gemm(cotangent.slice(-4, from, to), samples_of(weights, -4, from, to), u, true);
    if (g.pointwise()) return write(target, u.reshape(target.shape()));
    Tensor images(target.shape(), dx.dtype(), device);
    for_floating(dx.dtype(), "conv2d", [&](auto zero) { fold_typed<decltype(zero)>(g, u, images); });
    write(target, images);
  });
}

void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x, const Tensor& dy, Tensor& dw) {
  if (dw.elements() == 0) return;
  const Geometry g(shape);
  const int64_t N = x.extent(-4);
  const bool shared = dw.extent(-5) == 1;
  const Shape lead = dw.shape().leading(dw.rank() - 5), matrix{shape.groups, g.out_channels(), g.columns.value()};
  const Tensor cotangent = by_group(g, dy).transpose(-2, -1);
  if (shared || N == 0) fill(dw, 0);
  Tensor total = dw.reshape(lead + Shape{dw.extent(-5)} + matrix);
  for_samples(g, x, [&](int64_t from, int64_t to) {
    const Tensor u = unfold(g, x.slice(-4, from, to));
    if (!shared) {
      Tensor part = total.slice(-4, from, to);
      gemm(cotangent.slice(-4, from, to), u, part);
      return;
    }
    // A gradient for each of a few samples, and their sum, so that no product depends on the number of samples.
    constexpr int64_t tile = 8;
    for (int64_t first = from; first < to; first += tile) {
      const int64_t last = std::min(to, first + tile);
      Tensor each(lead + Shape{last - first} + matrix, dw.dtype(), device), sum(total.shape(), dw.dtype(), device);
      gemm(cotangent.slice(-4, first, last), u.slice(-4, first - from, last - from), each);
      reduce(ReduceKind::sum, each, sum);
      map(BinaryKind::add, total, sum, total);
    }
  });
}

}  // namespace fastntk::FASTNTK_GPU
