// Architectures by name. A model is made from a ModelConfig, which is a flat list of strings, so that it can be stored
// in the metadata of a checkpoint; code outside this repository may enter architectures of its own.
#pragma once
#include <functional>
#include <map>
#include <optional>

#include "models/module.h"

namespace fastntk {

/// What it takes to build a model. Image extents of 0 mean that any will do.
struct ModelConfig {
  std::string architecture;
  int64_t classes = 10;
  int64_t channels = 3;
  int64_t image_height = 0, image_width = 0;
  /// The architecture's own options, e.g. {"width", "16"}; those left out have their default.
  std::map<std::string, std::string> options = {};

  /// "resnet20, classes 10, channels 1, image 28x28, shortcut B, stem cifar, width 16"
  std::string str() const;
  /// As flat entries "model.architecture", "model.classes", …, "model.option.width".
  std::map<std::string, std::string> to_map() const;
  /// Reads such entries and leaves others alone; no value when there is no "model.architecture".
  static std::optional<ModelConfig> from_map(const std::map<std::string, std::string>& entries);
  /// The value of an option that build_model has checked to be there.
  const std::string& option(const std::string& name) const;
  int64_t positive_option(const std::string& name) const;
};

/// A model and how it was made.
struct Model {
  ModelConfig config;
  std::unique_ptr<Module> module;

  Module& operator*() const { return *module; }
  Module* operator->() const { return module.get(); }
  /// A model of its own with the same values and element type.
  Model clone() const;
};

/// The names and shapes of the parameters of a checkpoint.
using NamedShapes = std::map<std::string, Shape>;

struct Architecture {
  std::string name;
  std::string description;                     ///< one line for listings
  std::map<std::string, std::string> options;  ///< its options and their defaults
  /// Makes the modules; every option is set in the config, and none is unknown.
  std::function<std::unique_ptr<Module>(const ModelConfig&)> build;
  /// Reads classes, channels and options from a checkpoint that came without a configuration. May be empty; throws
  /// Error when the shapes are not of this architecture.
  std::function<ModelConfig(const NamedShapes&)> infer;
  /// The name in this model of what a checkpoint of another library calls `name` (timm's for torchvision's), or `name`
  /// itself. Applied to every tensor of a checkpoint before `infer` and loading. May be empty.
  std::function<std::string(const std::string& name)> rename = {};
};

/// Enters an architecture under its name, which must be free.
void register_architecture(Architecture architecture);
/// UsageError listing the known names when there is none.
const Architecture& find_architecture(const std::string& name);
/// Names in alphabetical order.
std::vector<std::string> architecture_names();

/// The modules, with parameters zero. Options left out get their defaults in the model's config; an unknown option or
/// architecture is a UsageError that lists the known ones.
Model build_model(ModelConfig config);
/// The same with parameters drawn from their initial distributions.
Model make_model(ModelConfig config, uint64_t seed);
/// The configuration of a checkpoint of `architecture` that has these parameters.
ModelConfig infer_config(const std::string& architecture, const NamedShapes& shapes);

}  // namespace fastntk
