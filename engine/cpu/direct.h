// Direct convolution: register tiles over a zero-bordered copy of a few images (engine/cpu/isa/direct.cpp).
#pragma once
#include "engine/cpu/convolution.h"

namespace fastntk::cpu {

/// Whether direct_forward takes the shape: groups 1, output channels a multiple of 16, input channels too or (first
/// layers) at most 4. Any kernel size, stride, padding and dilation.
bool direct_forward_takes(const ConvolutionShape& shape);
/// Whether direct_input_gradient takes the shape: groups 1, input and output channels multiples of 16.
bool direct_input_gradient_takes(const ConvolutionShape& shape);

/// See PackedConvolution.
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> direct_forward(const ConvolutionShape& shape, const T* weights, Isa isa);
/// The input gradient of stride s by s x s phases: outputs of one parity receive the same taps, and no product is with
/// a zero that the stride put in.
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> direct_input_gradient(const ConvolutionShape& shape, const T* weights,
                                                                  Isa isa);

}  // namespace fastntk::cpu
