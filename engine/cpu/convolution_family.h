// Batches of convolutions on the CPU: shared or per-sample weights, stacks of cotangents; contracts in
// engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& x, const Tensor& w,
                 Tensor& out);
void convolution_input_gradient(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& dy,
                                const Tensor& w, Tensor& dx);
void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x, const Tensor& dy, Tensor& dw);

}  // namespace fastntk::cpu
