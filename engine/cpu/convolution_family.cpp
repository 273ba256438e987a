#include "engine/cpu/convolution_family.h"

#include "engine/cpu/convolution.h"
#include "engine/cpu/weight_gradient.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

enum class Direction { forward, input_gradient };

template <class T>
PackedConvolution<T> pack(Direction direction, const ConvolutionShape& shape, const T* weights,
                          ConvolutionAlgorithm algorithm) {
  return direction == Direction::forward ? PackedConvolution<T>::forward(shape, weights, algorithm)
                                         : PackedConvolution<T>::input_gradient(shape, weights, algorithm);
}

std::string key_of(Direction direction, const ConvolutionShape& s, ConvolutionAlgorithm algorithm, int64_t offset) {
  return fmt::format("convolution {} {} {} {}x{}x{} {} {}x{} {}x{} {}x{} {}x{} {}", static_cast<int>(direction),
                     static_cast<int>(algorithm), offset, s.height, s.width, s.in_channels, s.out_channels,
                     s.kernel_height, s.kernel_width, s.stride_height, s.stride_width, s.padding_height,
                     s.padding_width, s.dilation_height, s.dilation_width, s.groups);
}

int64_t stack_of(const Tensor& t, int own_rank) { return t.shape().leading(t.rank() - own_rank).elements(); }

// in [S or none, N, …], w [S or none, 1 or N, O, I, kh, kw], out [S or none, N, …]. Every distinct set of weights is
// packed once.
void run(Direction direction, const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& in_view,
         const Tensor& w_view, Tensor& out) {
  if (out.elements() == 0) return;
  const Tensor in = in_view.contiguous();
  const bool shared = w_view.extent(-5) == 1 || w_view.strides()[-5] == 0;
  const Tensor w = (shared ? w_view.slice(-5, 0, 1) : w_view).contiguous();
  const int64_t N = in.extent(-4), stack = stack_of(out, 4), stack_in = stack_of(in, 4), stack_w = stack_of(w, 5);
  for_floating(in.dtype(), "conv2d", [&](auto zero) {
    using T = decltype(zero);
    const T *const x = in.data<T>(), *const weights = w.data<T>();
    T* const y = out.mutable_data<T>();
    if (shared && stack_w == 1) {
      const auto packed = w.storage()->derived<PackedConvolution<T>>(
          key_of(direction, shape, algorithm, w.offset()), [&] { return pack(direction, shape, weights, algorithm); });
      packed->run(stack * N, x, y);
      return;
    }
    const int64_t in_image = in.elements() / (stack_in * N), out_image = out.elements() / (stack * N);
    const int64_t per_stack = shared ? 1 : N, images = shared ? N : 1;
    parallel_for(stack_w * per_stack, [&](int64_t i) {
      const auto packed = pack(direction, shape, weights + i * shape.weight_elements(), algorithm);
      const int64_t n = i % per_stack, first = stack_w == 1 ? 0 : i / per_stack,
                    last = stack_w == 1 ? stack : first + 1;
      for (int64_t k = first; k < last; k++)
        packed.run(images, x + ((stack_in == 1 ? 0 : k) * N + n) * in_image, y + (k * N + n) * out_image);
    });
  });
}

}  // namespace

void convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& x, const Tensor& w,
                 Tensor& out) {
  run(Direction::forward, shape, algorithm, x, w, out);
}

void convolution_input_gradient(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& dy,
                                const Tensor& w, Tensor& dx) {
  run(Direction::input_gradient, shape, algorithm, dy, w, dx);
}

void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x_view, const Tensor& dy_view,
                                 Tensor& dw) {
  const Tensor x = x_view.contiguous(), dy = dy_view.contiguous();
  const int64_t N = x.extent(-4), stack = stack_of(dw, 5), batch = dw.extent(-5), images = batch == 1 ? N : 1;
  const int64_t stack_x = stack_of(x, 4), stack_dy = stack_of(dy, 4);
  for_floating(x.dtype(), "conv2d", [&](auto zero) {
    using T = decltype(zero);
    const T *const px = x.data<T>(), *const pdy = dy.data<T>();
    T* const pdw = dw.mutable_data<T>();
    parallel_for(stack * batch, [&](int64_t i) {
      const int64_t k = i / batch, n = i % batch;
      convolution_weight_gradient(shape, images, px + ((stack_x == 1 ? 0 : k) * N + n) * shape.input_elements(),
                                  pdy + ((stack_dy == 1 ? 0 : k) * N + n) * shape.output_elements(),
                                  pdw + i * shape.weight_elements(), false);
    });
  });
}

}  // namespace fastntk::cpu
