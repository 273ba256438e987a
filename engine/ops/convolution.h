// Two-dimensional convolution, channels last.
#pragma once
#include "engine/convolution_shape.h"
#include "engine/op.h"

namespace fastntk {

/// Geometry of conv2d; {height, width} pairs.
struct Conv2dOptions {
  int64_t stride[2] = {1, 1};
  int64_t padding[2] = {0, 0};
  int64_t dilation[2] = {1, 1};
  int64_t groups = 1;
};

/// x [N, H, W, C] with weights [1 or N, O, C / groups, kh, kw] → [N, OH, OW, O]. With N weights every sample has its
/// own. Where the shape allows it, float32 uses Winograd's algorithm unless set_convolution_algorithm says `exact`.
Variable conv2d(const Variable& x, const Variable& weight, const Conv2dOptions& options = {});

/// Geometry of conv_transpose2d; {height, width} pairs. output_padding adds rows and columns that no window of the
/// convolution it transposes reaches; it is less than the stride.
struct ConvTranspose2dOptions {
  int64_t stride[2] = {1, 1};
  int64_t padding[2] = {0, 0};
  int64_t output_padding[2] = {0, 0};
  int64_t dilation[2] = {1, 1};
  int64_t groups = 1;
};

/// The transpose of conv2d in its input: x [N, H, W, C] with weights [1 or N, C, O / groups, kh, kw] (as PyTorch stores
/// them) → [N, (H − 1) · stride − 2 · padding + dilation · (kh − 1) + output_padding + 1, …, O].
Variable conv_transpose2d(const Variable& x, const Variable& weight, const ConvTranspose2dOptions& options = {});

/// The algorithm that conv2d uses from now on, in all threads; `fast` at first.
void set_convolution_algorithm(ConvolutionAlgorithm algorithm);
ConvolutionAlgorithm convolution_algorithm();

}  // namespace fastntk
