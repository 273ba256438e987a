// Resizing of 8-bit images with antialiasing, as Pillow's Image.resize.
#pragma once
#include <cstdint>
#include <string>

#include "engine/tensor.h"

namespace fastntk {

/// Triangle of half-width 1, and Keys' cubic with a = −½ (half-width 2).
enum class Filter : uint8_t { bilinear, bicubic };
constexpr const char* name_of(Filter filter) { return filter == Filter::bilinear ? "bilinear" : "bicubic"; }

/// uint8 [h, w, c] → uint8 [height, width, c]. An output pixel is the mean of the input pixels under the filter, which
/// is widened by the scale where the image shrinks. First along rows, then along columns; each pass rounds to 8 bits,
/// with weights of 22 binary digits. That is what published models were trained behind, and why this is not the
/// engine's resize op, which works on floating-point numbers and rounds nothing. The bits are Pillow's, except where
/// Pillow (from some version on) takes the columns first because the height shrinks and the width does not: then some
/// differ by one step.
Tensor resample(const Tensor& image, int64_t height, int64_t width, Filter filter);

}  // namespace fastntk
