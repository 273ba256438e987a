// Resampling of images to another size.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// Between pixels: the nearest one, a straight line between two, or Keys' cubic convolution over four.
enum class Interpolation : uint8_t { nearest, bilinear, bicubic };

struct ResizeOptions {
  Interpolation interpolation = Interpolation::bilinear;
  /// When shrinking, average over all pixels that an output pixel covers (the interpolation's kernel is stretched).
  bool antialias = false;
};

/// The matrix [out, in] of a resize along one axis, float64: as PyTorch's interpolate with align_corners = false.
/// Without antialiasing pixels past the border repeat it, and Keys' a is −0.75; with it the kernel is cut at the border
/// and normalised, and a is −0.5, as in Pillow. There is no antialiasing of `nearest`.
/// (Keys 1981, Cubic convolution interpolation for digital image processing.)
Tensor resize_matrix(int64_t in, int64_t out, const ResizeOptions& options);

/// Images x [N, H, W, C] → [N, height, width, C]: y = A x Bᵀ for each channel, with the matrices of both axes. An axis
/// that keeps its extent is left alone. A composition of matmul and reshape on the tape.
Variable resize(const Variable& x, int64_t height, int64_t width, const ResizeOptions& options = {});

}  // namespace fastntk
