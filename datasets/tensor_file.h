// Tensors in a file as a data set: .safetensors or .npy, in the layout of PyTorch's users.
#pragma once
#include <string>

#include "datasets/dataset.h"

namespace fastntk {

/// True if the name ends like that of a tensor file.
bool is_tensor_file(const std::string& path);

/// From .safetensors: the tensor `input` (float32, float64 or uint8 [N, C, H, W]) and, where there is one, `labels`
/// (int64 or uint8 [N]); other tensors are left alone. From .npy: the input alone. The images become [N, H, W, C].
/// The number of classes is what the largest label tells; the name of the data set is the path.
Dataset load_tensor_file(const std::string& path);

}  // namespace fastntk
