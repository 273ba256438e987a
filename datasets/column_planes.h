// Images as MATLAB leaves them: one colour plane after the other, each column by column.
#pragma once
#include <cstdint>

#include "engine/tensor.h"

namespace fastntk {

/// [count][channel][column][row], side columns and rows → uint8 [count, side, side, channels].
Tensor images_from_column_planes(const uint8_t* planes, int64_t count, int64_t side, int64_t channels);

}  // namespace fastntk
