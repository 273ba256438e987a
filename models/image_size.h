// A model for images of another size.
#pragma once
#include "models/registry.h"

namespace fastntk {

/// The same vision transformer for images of another size, its position embeddings resized over the grid of patches
/// (bicubic with antialiasing, as timm does when it loads a checkpoint); that of the class token stays. UsageError for
/// a model without position embeddings or a size that the patches do not divide.
Model with_image_size(const Model& model, int64_t height, int64_t width);

}  // namespace fastntk
