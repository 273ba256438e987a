// Augmentation of a batch of images.
#pragma once
#include <cstdint>

#include "engine/random.h"
#include "engine/tensor.h"

namespace fastntk {

struct Augmentation {
  bool flip = false;  ///< mirrored left to right with probability ½
  int64_t crop =
      0;  ///< shifted by up to this many pixels each way; what enters is zero (the mean, after normalisation)
};

/// images [n, H, W, C]; image i is changed by the numbers (counter base + i) of `random` alone.
Tensor augment(const Tensor& images, const Augmentation& augmentation, const Random& random, uint64_t base);

}  // namespace fastntk
