#include "models/registry.h"

#include <mutex>

#include "engine/parse_number.h"
#include "models/architectures.h"

namespace fastntk {
namespace {

struct Table {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<const Architecture>> architectures;
};

void enter(Table& table, Architecture architecture) {
  const std::lock_guard lock(table.mutex);
  auto& entry = table.architectures[architecture.name];
  require(!entry, "an architecture named '{}' is registered already", architecture.name);
  entry = std::make_unique<const Architecture>(std::move(architecture));
}

Table& table() {
  static Table& filled = [&]() -> Table& {
    static Table t;
    for (const auto& family :
         {resnet_architectures, preact_resnet_architectures, vgg_architectures, small_architectures, vit_architectures})
      for (Architecture& architecture : family()) enter(t, std::move(architecture));
    return t;
  }();
  return filled;
}

int64_t integer(const std::string& text, const std::string& what, int64_t least) {
  const auto value = parse_number<int64_t>(text);
  require_usage(value && *value >= least, "{} must be an integer of at least {}, got '{}'", what, least, text);
  return *value;
}

template <class Map>
std::string keys_of(const Map& map) {
  std::string text;
  for (const auto& [key, value] : map) text += (text.empty() ? "" : ", ") + key;
  return text.empty() ? "none" : text;
}

}  // namespace

const Shape& shape_in(const NamedShapes& shapes, const std::string& name, int rank, const std::string& architecture) {
  const auto found = shapes.find(name);
  require(found != shapes.end(), "not a checkpoint of {}: it has no {}", architecture, name);
  require(found->second.rank() == rank, "not a checkpoint of {}: its {} has the shape {}", architecture, name,
          found->second.str());
  return found->second;
}

double number_option(const ModelConfig& config, const std::string& name, double least, double most) {
  const std::string& text = config.option(name);
  const auto value = parse_number<double>(text);
  require_usage(value && *value >= least && *value <= most, "{}: {} must be a number from {:g} to {:g}, got '{}'",
                config.architecture, name, least, most, text);
  return *value;
}

int64_t count_numbered(const NamedShapes& shapes, const std::string& prefix, const std::string& suffix) {
  int64_t count = 0;
  while (shapes.count(prefix + std::to_string(count) + suffix)) count++;
  return count;
}

std::string ModelConfig::str() const {
  std::string text = fmt::format("{}, classes {}, channels {}", architecture, classes, channels);
  if (image_height > 0) text += fmt::format(", image {}x{}", image_height, image_width);
  for (const auto& [name, value] : options) text += fmt::format(", {} {}", name, value);
  return text;
}

std::map<std::string, std::string> ModelConfig::to_map() const {
  std::map<std::string, std::string> entries{{"model.architecture", architecture},
                                             {"model.classes", std::to_string(classes)},
                                             {"model.channels", std::to_string(channels)},
                                             {"model.image_height", std::to_string(image_height)},
                                             {"model.image_width", std::to_string(image_width)}};
  for (const auto& [name, value] : options) entries["model.option." + name] = value;
  return entries;
}

std::optional<ModelConfig> ModelConfig::from_map(const std::map<std::string, std::string>& entries) {
  const auto architecture = entries.find("model.architecture");
  if (architecture == entries.end()) return std::nullopt;
  ModelConfig config{.architecture = architecture->second};
  const auto read = [&](const std::string& key, int64_t least, int64_t& value) {
    const auto found = entries.find(key);
    require(found != entries.end(), "the configuration of a model lacks {}", key);
    value = integer(found->second, key, least);
  };
  read("model.classes", 1, config.classes);
  read("model.channels", 1, config.channels);
  read("model.image_height", 0, config.image_height);
  read("model.image_width", 0, config.image_width);
  const std::string prefix = "model.option.";
  for (const auto& [key, value] : entries)
    if (key.starts_with(prefix)) config.options[key.substr(prefix.size())] = value;
  return config;
}

const std::string& ModelConfig::option(const std::string& name) const {
  const auto found = options.find(name);
  require(found != options.end(), "the configuration of {} lacks the option '{}'", architecture, name);
  return found->second;
}

int64_t ModelConfig::positive_option(const std::string& name) const {
  return integer(option(name), fmt::format("{}: {}", architecture, name), 1);
}

Model Model::clone() const {
  Model copy = build_model(config);
  copy->to(module->dtype());
  copy->to(module->device());
  copy->copy_state(*module);
  return copy;
}

void register_architecture(Architecture architecture) { enter(table(), std::move(architecture)); }

const Architecture& find_architecture(const std::string& name) {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  const auto found = t.architectures.find(name);
  require_usage(found != t.architectures.end(), "unknown architecture '{}'; known are {}", name,
                keys_of(t.architectures));
  return *found->second;
}

std::vector<std::string> architecture_names() {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  std::vector<std::string> names;
  for (const auto& [name, architecture] : t.architectures) names.push_back(name);
  return names;
}

Model build_model(ModelConfig config) {
  const Architecture& architecture = find_architecture(config.architecture);
  require_usage(config.classes > 0 && config.channels > 0, "{} needs at least one class and one channel, got {} and {}",
                config.architecture, config.classes, config.channels);
  for (const auto& [name, value] : config.options)
    require_usage(architecture.options.count(name) > 0, "{} has no option '{}'; its options are {}",
                  config.architecture, name, keys_of(architecture.options));
  config.options.insert(architecture.options.begin(), architecture.options.end());
  auto module = architecture.build(config);
  return {std::move(config), std::move(module)};
}

Model make_model(ModelConfig config, uint64_t seed) {
  Model model = build_model(std::move(config));
  model->initialise(seed);
  return model;
}

ModelConfig infer_config(const std::string& architecture, const NamedShapes& shapes) {
  const Architecture& found = find_architecture(architecture);
  require(static_cast<bool>(found.infer), "the configuration of {} cannot be read from the shapes of a checkpoint",
          architecture);
  if (!found.rename) return found.infer(shapes);
  NamedShapes renamed;
  for (const auto& [name, shape] : shapes) renamed[found.rename(name)] = shape;
  return found.infer(renamed);
}

}  // namespace fastntk
