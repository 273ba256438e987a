// Depthwise convolution: every channel by itself, so that channels are the innermost loop
// (engine/cpu/isa/depthwise.cpp).
#pragma once
#include "engine/cpu/convolution.h"

namespace fastntk::cpu {

/// One input and one output channel per group.
bool is_depthwise(const ConvolutionShape& shape);

/// See PackedConvolution.
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> depthwise_forward(const ConvolutionShape& shape, const T* weights, Isa isa);
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> depthwise_input_gradient(const ConvolutionShape& shape, const T* weights,
                                                                     Isa isa);

/// See convolution_weight_gradient. The gradient of one image is, for each tap, one chain over its output pixels in
/// raster order.
template <class T>
void depthwise_weight_gradient(const ConvolutionShape& shape, int64_t images, const T* x, const T* dy, T* dw,
                               bool accumulate);

}  // namespace fastntk::cpu
