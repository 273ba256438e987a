// Winograd F(4x4, 3x3) in float32 (engine/cpu/isa/winograd.cpp).
#pragma once
#include "engine/cpu/convolution.h"

namespace fastntk::cpu {

/// Whether the shape is one of Winograd's (3x3, stride and dilation 1, groups 1, padding at most 2, channels multiples
/// of 16) and large enough that it is faster than the direct convolution.
bool winograd_pays(const ConvolutionShape& shape);

/// See PackedConvolution.
std::shared_ptr<const ConvolutionKernel<float>> winograd_forward(const ConvolutionShape& shape, const float* weights,
                                                                 Isa isa);
std::shared_ptr<const ConvolutionKernel<float>> winograd_input_gradient(const ConvolutionShape& shape,
                                                                        const float* weights, Isa isa);

}  // namespace fastntk::cpu
