// Models in files: their own (safetensors with torch's names, and the configuration in the metadata), and the
// checkpoints of torch, torchvision and timm.
#pragma once
#include "engine/safetensors.h"
#include "models/registry.h"

namespace fastntk {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// All parameters, then all buffers, by full name. The tensors are handles of the model's own, not copies.
NamedTensors state(const Module& module);
/// Sets all parameters and buffers, rounding to the model's type. One Error names every tensor that is missing,
/// unexpected or of another shape, or the first that has a NaN or infinity; the model is then unchanged.
/// num_batches_tracked may be missing, as in old checkpoints; a linear layer [O, I] may come as the convolution over
/// the whole image that it is, [O, C, h, w] with C·h·w = I, or the other way round. `source` stands for the tensors'
/// origin in errors.
void load_state(Module& module, const NamedTensors& tensors, const std::string& source);

/// The contents of a model's file: state(), and `metadata` in which entries "model.…" are replaced by the model's
/// configuration. Tensors in `extra`, whose names begin with "fastntk.", follow the model's; load_model ignores them.
SafeTensors model_file(const Model& model, std::map<std::string, std::string> metadata = {},
                       const NamedTensors& extra = {});
/// Writes model_file() atomically.
void save_model(const std::string& path, const Model& model, std::map<std::string, std::string> metadata = {},
                const NamedTensors& extra = {});

struct Checkpoint {
  Model model;
  std::map<std::string, std::string> metadata;  ///< all of it, the configuration included
};

/// Reads a model from a file of any format that engine/weights_file.h knows; it is float64 when the file's parameters
/// are. A file without a configuration needs the name of its architecture, whose options are then read from the shapes;
/// its tensors are renamed as names_of says. Where both are there they must agree.
Checkpoint load_model(const std::string& path, const std::string& architecture = {});

/// The name in a model of `architecture` of each tensor of a foreign checkpoint: without what wrappers put before all
/// names
/// ("module." of DataParallel, "_orig_mod." of torch.compile, "model."), and renamed by the architecture. Error where
/// two get the same name.
std::map<std::string, std::string> names_of(const std::vector<std::string>& names, const std::string& architecture);

/// How tensors compare with a model.
struct Fit {
  ModelConfig config;
  size_t differences = 0;  ///< tensors that are missing, unexpected or misshaped
  std::string text;        ///< names them, or the first of each kind: "missing fc.bias; unexpected head.bias"
};
/// For every registered architecture whose configuration can be read from these shapes, how well it fits; the best
/// first.
std::vector<Fit> fitting_architectures(const NamedShapes& shapes);

}  // namespace fastntk
