// Convolution by matrix products: the general path, which takes every shape; 1x1 convolutions.
#pragma once
#include "engine/cpu/convolution.h"

namespace fastntk::cpu {

/// See PackedConvolution. The patches of some output pixels are copied into rows of a matrix, one product per group
/// follows.
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> unfold_forward(const ConvolutionShape& shape, const T* weights);
/// Products first, then each patch is added to the image, in the order of the output pixels.
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> unfold_input_gradient(const ConvolutionShape& shape, const T* weights);

/// 1x1 kernel, no padding, groups 1, any stride: one product over the pixels that the stride visits.
bool is_pointwise(const ConvolutionShape& shape);
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> pointwise_forward(const ConvolutionShape& shape, const T* weights);
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> pointwise_input_gradient(const ConvolutionShape& shape, const T* weights);

}  // namespace fastntk::cpu
