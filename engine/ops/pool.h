// Pooling over windows of an image, channels last.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// Geometry of a pooling window; {height, width} pairs.
struct Pool2dOptions {
  int64_t kernel[2] = {2, 2};
  int64_t stride[2] = {2, 2};
  int64_t padding[2] = {0, 0};
};

/// x [N, H, W, C] → [N, OH, OW, C]. Padding never wins; of equal values the first in row-major order does.
Variable max_pool2d(const Variable& x, const Pool2dOptions& options);
/// Padding counts as zeros in the mean, as in torch.nn.AvgPool2d.
Variable average_pool2d(const Variable& x, const Pool2dOptions& options);
/// x [N, H, W, C] → [N, height, width, C]: output (i, j) is the mean over rows ⌊iH/height⌋ … ⌈(i+1)H/height⌉ − 1, and
/// columns likewise, as in torch.nn.AdaptiveAvgPool2d.
Variable adaptive_average_pool2d(const Variable& x, int64_t height, int64_t width);
/// x [N, H, W, C] → [N, 1, 1, C], the mean over the image.
Variable global_average_pool(const Variable& x);

}  // namespace fastntk
