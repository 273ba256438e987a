// The geometry of a two-dimensional convolution.
#pragma once
#include <cstdint>
#include <string>

#include "engine/error.h"

namespace fastntk {

/// Extents of one image and of the kernel that slides over it. Images are [height, width, in_channels] (channels last),
/// weights [out_channels, in_channels / groups, kernel_height, kernel_width] as torchvision stores them.
struct ConvolutionShape {
  int64_t height = 0, width = 0, in_channels = 0, out_channels = 0;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_height = 1, stride_width = 1;
  int64_t padding_height = 0, padding_width = 0;
  int64_t dilation_height = 1, dilation_width = 1;
  int64_t groups = 1;

  int64_t out_height() const { return extent(height, kernel_height, stride_height, padding_height, dilation_height); }
  int64_t out_width() const { return extent(width, kernel_width, stride_width, padding_width, dilation_width); }
  int64_t input_elements() const { return height * width * in_channels; }
  int64_t output_elements() const { return out_height() * out_width() * out_channels; }
  int64_t weight_elements() const { return out_channels * (in_channels / groups) * kernel_height * kernel_width; }
  /// Multiplications and additions of one image.
  double flops() const {
    return 2.0 * static_cast<double>(out_height() * out_width()) * static_cast<double>(weight_elements());
  }
  bool operator==(const ConvolutionShape&) const = default;

 private:
  static int64_t extent(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
    return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  }
};

/// `exact`: every product is a product of an input and a weight. `fast`: Winograd F(4x4, 3x3) where the shape allows
/// it, about 1e-5 of the largest value, two to four times fewer multiplications.
enum class ConvolutionAlgorithm : uint8_t { exact, fast };

}  // namespace fastntk
