#include "models/checkpoint.h"

#include <algorithm>

#include "engine/backend.h"
#include "engine/safetensors.h"

namespace fastntk {
namespace {

// "a, b, c and 12 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t shown = 5;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), shown); i++) text += (i ? ", " : "") + names[i];
  return names.size() <= shown ? text : text + fmt::format(" and {} more", names.size() - shown);
}

bool may_be_missing(const std::string& name) { return name.ends_with("num_batches_tracked"); }

// The configuration of the model in a file: the file's own, else what the shapes of `architecture` tell.
ModelConfig config_of(const SafeTensors& file, const std::string& path, const std::string& architecture) {
  if (auto config = ModelConfig::from_map(file.metadata)) {
    require_usage(architecture.empty() || architecture == config->architecture, "{} holds a {}, not a {}", path,
                  config->architecture, architecture);
    return *config;
  }
  require_usage(!architecture.empty(), "{} has no configuration of a model: name its architecture", path);
  NamedShapes shapes;
  for (const auto& [name, tensor] : file.tensors) shapes[name] = tensor.shape();
  return infer_config(architecture, shapes);
}

}  // namespace

NamedTensors state(const Module& module) {
  NamedTensors all;
  for (const auto& [name, p] : module.named_parameters()) all.emplace_back(name, p->value);
  for (const auto& [name, b] : module.named_buffers()) all.emplace_back(name, b->value);
  return all;
}

void load_state(Module& module, const NamedTensors& tensors, const std::string& source) {
  const std::map<std::string, Tensor> given(tensors.begin(), tensors.end());
  NamedTensors ours = state(module);
  std::vector<std::string> missing, misshaped, unexpected;
  std::map<std::string, bool> known;
  for (const auto& [name, tensor] : ours) {
    known[name] = true;
    const auto found = given.find(name);
    if (found == given.end()) {
      if (!may_be_missing(name)) missing.push_back(name);
    } else if (found->second.shape() != tensor.shape()) {
      misshaped.push_back(fmt::format("{} {} instead of {}", name, found->second.shape().str(), tensor.shape().str()));
    }
  }
  for (const auto& [name, tensor] : tensors)
    if (!known.count(name)) unexpected.push_back(name);
  std::string problems;
  const auto report = [&](const char* what, const std::vector<std::string>& names) {
    if (!names.empty()) problems += fmt::format("{}{} {}", problems.empty() ? "" : "; ", what, listed(names));
  };
  report("missing", missing);
  report("unexpected", unexpected);
  report("misshaped", misshaped);
  require(problems.empty(), "{} does not fit the model: {}", source, problems);

  for (const auto& [name, tensor] : tensors) {
    const int64_t at = is_floating(tensor.dtype()) ? backend_of(tensor).first_non_finite(tensor) : -1;
    require(at < 0, "{}: {} has a NaN or an infinity, first at its element {}", source, name, at);
  }
  for (auto& [name, tensor] : ours)
    if (const auto found = given.find(name); found != given.end()) tensor.copy_from(found->second);
}

void save_model(const std::string& path, const Model& model, std::map<std::string, std::string> metadata,
                const NamedTensors& extra) {
  std::erase_if(metadata, [](const auto& entry) { return entry.first.starts_with("model."); });
  metadata.merge(model.config.to_map());
  NamedTensors tensors = state(*model);
  for (const auto& entry : extra) {
    require(entry.first.starts_with("fastntk."), "an extra tensor of a model file must be named 'fastntk.…', got '{}'",
            entry.first);
    tensors.push_back(entry);
  }
  SafeTensors{std::move(metadata), std::move(tensors)}.save(path);
}

Checkpoint load_model(const std::string& path, const std::string& architecture) {
  SafeTensors file = SafeTensors::load(path);
  std::erase_if(file.tensors, [](const auto& named) { return named.first.starts_with("fastntk."); });
  Model model = build_model(config_of(file, path, architecture));
  const auto is_double = [](const auto& named) { return named.second.dtype() == DType::float64; };
  if (std::any_of(file.tensors.begin(), file.tensors.end(), is_double)) model->to(DType::float64);
  load_state(*model, file.tensors, path);
  return {std::move(model), std::move(file.metadata)};
}

}  // namespace fastntk
