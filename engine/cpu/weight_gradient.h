// The gradient of a convolution with respect to its weights.
#pragma once
#include <cstdint>

#include "engine/convolution_shape.h"

namespace fastntk::cpu {

/// dw[k, c, i, j] = sum over images n and output pixels (u, v) of
///   dy[n, u, v, k] x[n, u stride_h + i dilation_h - padding_h, v stride_w + j dilation_w - padding_w, c],
/// with zeros outside the image; added to dw if `accumulate`. T is float or double. x is [images, height, width,
/// in_channels], dy [images, out_height, out_width, out_channels], dw [out_channels, in_channels / groups,
/// kernel_height, kernel_width]; in each group c counts that group's channels. All are contiguous.
///
/// The bits are those of dw = (((dw or g0) + g1) + g2) + ..., where g_n is the gradient of image n by itself: a batch
/// can be cut anywhere and accumulated, and any number of threads gives the same. Unless the convolution is depthwise,
/// in g_n blocks of output rows (at most 128 pixels, or one row) are each one chain of multiply-adds from zero in
/// raster order, added in ascending order.
template <class T>
void convolution_weight_gradient(const ConvolutionShape& shape, int64_t images, const T* x, const T* dy, T* dw,
                                 bool accumulate = false);

}  // namespace fastntk::cpu
