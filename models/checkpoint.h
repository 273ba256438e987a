// Models in files: safetensors with torchvision's names, and the configuration in the metadata.
#pragma once
#include "models/registry.h"

namespace fastntk {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// All parameters, then all buffers, by full name. The tensors are handles of the model's own, not copies.
NamedTensors state(const Module& module);
/// Sets all parameters and buffers, rounding to the model's type. One Error names every tensor that is missing,
/// unexpected or of another shape, or the first that has a NaN or infinity; the model is then unchanged.
/// num_batches_tracked may be missing, as in old checkpoints. `source` stands for the tensors' origin in errors.
void load_state(Module& module, const NamedTensors& tensors, const std::string& source);

/// Writes state() atomically. Entries "model.…" of `metadata` are replaced by the model's configuration. Tensors in
/// `extra`, whose names begin with "fastntk.", are written after the model's and ignored by load_model.
void save_model(const std::string& path, const Model& model, std::map<std::string, std::string> metadata = {},
                const NamedTensors& extra = {});

struct Checkpoint {
  Model model;
  std::map<std::string, std::string> metadata;  ///< all of it, the configuration included
};

/// Reads a model; it is float64 when the file's parameters are. A file without a configuration needs the name of its
/// architecture, whose options are then read from the shapes. Where both are there they must agree.
Checkpoint load_model(const std::string& path, const std::string& architecture = {});

}  // namespace fastntk
