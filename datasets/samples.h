// Samples ready for a model: floating-point inputs and labels.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

/// inputs [n, H, W, channels] in the model's type, normalised; labels int64 [n]; ids [n] into the data set as
/// published.
struct Samples {
  Tensor inputs, labels;
  std::vector<int64_t> ids;
  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

/// The samples at these positions, copied.
Samples select(const Samples& samples, const std::vector<int64_t>& positions);

}  // namespace fastntk
