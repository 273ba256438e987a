#include "engine/cpu/convolution.h"

#include <type_traits>

#include "engine/cpu/depthwise.h"
#include "engine/cpu/direct.h"
#include "engine/cpu/unfold.h"
#include "engine/cpu/winograd.h"
#include "engine/error.h"

namespace fastntk::cpu {

void require_convolution(const ConvolutionShape& s) {
  require(s.height > 0 && s.width > 0 && s.in_channels > 0 && s.out_channels > 0 && s.kernel_height > 0 &&
              s.kernel_width > 0,
          "convolution: extents must be positive, got images [{}, {}, {}], {} output channels, kernel {}x{}", s.height,
          s.width, s.in_channels, s.out_channels, s.kernel_height, s.kernel_width);
  require(s.stride_height > 0 && s.stride_width > 0 && s.dilation_height > 0 && s.dilation_width > 0 &&
              s.padding_height >= 0 && s.padding_width >= 0,
          "convolution: strides and dilations must be positive and paddings not negative, "
          "got stride {}x{}, dilation {}x{}, padding {}x{}",
          s.stride_height, s.stride_width, s.dilation_height, s.dilation_width, s.padding_height, s.padding_width);
  require(s.groups > 0 && s.in_channels % s.groups == 0 && s.out_channels % s.groups == 0,
          "convolution: the number of groups must divide the channels, got {} groups, {} input and {} output channels",
          s.groups, s.in_channels, s.out_channels);
  require(s.height + 2 * s.padding_height > s.dilation_height * (s.kernel_height - 1) &&
              s.width + 2 * s.padding_width > s.dilation_width * (s.kernel_width - 1),
          "convolution: a {}x{} kernel of dilation {}x{} does not fit into a {}x{} image with padding {}x{}",
          s.kernel_height, s.kernel_width, s.dilation_height, s.dilation_width, s.height, s.width, s.padding_height,
          s.padding_width);
}

template <class T>
PackedConvolution<T> PackedConvolution<T>::forward(const ConvolutionShape& s, const T* weights,
                                                   ConvolutionAlgorithm algorithm, Isa isa) {
  require_convolution(s);
  if (is_pointwise(s)) return PackedConvolution(pointwise_forward(s, weights));
  if (is_depthwise(s)) return PackedConvolution(depthwise_forward(s, weights, isa));
  if constexpr (std::is_same_v<T, float>)
    if (algorithm == ConvolutionAlgorithm::fast && winograd_pays(s))
      return PackedConvolution(winograd_forward(s, weights, isa));
  if (direct_forward_takes(s)) return PackedConvolution(direct_forward(s, weights, isa));
  return PackedConvolution(unfold_forward(s, weights));
}

template <class T>
PackedConvolution<T> PackedConvolution<T>::input_gradient(const ConvolutionShape& s, const T* weights,
                                                          ConvolutionAlgorithm algorithm, Isa isa) {
  require_convolution(s);
  if (is_pointwise(s)) return PackedConvolution(pointwise_input_gradient(s, weights));
  if (is_depthwise(s)) return PackedConvolution(depthwise_input_gradient(s, weights, isa));
  if constexpr (std::is_same_v<T, float>)
    if (algorithm == ConvolutionAlgorithm::fast && winograd_pays(s))
      return PackedConvolution(winograd_input_gradient(s, weights, isa));
  if (direct_input_gradient_takes(s)) return PackedConvolution(direct_input_gradient(s, weights, isa));
  return PackedConvolution(unfold_input_gradient(s, weights));
}

template class PackedConvolution<float>;
template class PackedConvolution<double>;

}  // namespace fastntk::cpu
