#include "models/checkpoint.h"

#include <algorithm>

#include "engine/backend.h"
#include "engine/weights_file.h"

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

// Equal, or a linear layer and the convolution over the whole image that computes the same.
bool same_weights(const Shape& a, const Shape& b) {
  const bool alike = (a.rank() == 2 && b.rank() == 4) || (a.rank() == 4 && b.rank() == 2);
  return a == b || (alike && a[0] == b[0] && a.elements() == b.elements());
}

// What is wrong with tensors for a model, by kind.
struct Differences {
  std::vector<std::string> missing, unexpected, misshaped;

  Differences(const Module& module, const NamedShapes& given) {
    std::map<std::string, bool> known;
    for (const auto& [name, tensor] : state(module)) {
      known[name] = true;
      const auto found = given.find(name);
      if (found == given.end()) {
        if (!may_be_missing(name)) missing.push_back(name);
      } else if (!same_weights(found->second, tensor.shape())) {
        misshaped.push_back(fmt::format("{} {} instead of {}", name, found->second.str(), tensor.shape().str()));
      }
    }
    for (const auto& [name, shape] : given)
      if (!known.count(name)) unexpected.push_back(name);
  }

  size_t count() const { return missing.size() + unexpected.size() + misshaped.size(); }
  std::string text() const {
    std::string all;
    const auto add = [&](const char* what, const std::vector<std::string>& names) {
      if (!names.empty()) all += fmt::format("{}{} {}", all.empty() ? "" : "; ", what, listed(names));
    };
    add("missing", missing);
    add("unexpected", unexpected);
    add("misshaped", misshaped);
    return all;
  }
};

NamedShapes shapes_of(const NamedTensors& tensors) {
  NamedShapes shapes;
  for (const auto& [name, tensor] : tensors) shapes[name] = tensor.shape();
  return shapes;
}

NamedShapes renamed(const NamedShapes& shapes, const std::string& architecture) {
  std::vector<std::string> names;
  for (const auto& [name, shape] : shapes) names.push_back(name);
  NamedShapes result;
  for (const auto& [theirs, ours] : names_of(names, architecture)) result[ours] = shapes.at(theirs);
  return result;
}

// For the error of a file whose architecture must be named.
std::string suggestion(const NamedShapes& shapes) {
  const auto fits = fitting_architectures(shapes);
  if (fits.empty() || fits.front().differences) return "none that is known fits";
  std::string names;
  for (const Fit& fit : fits)
    if (!fit.differences) names += (names.empty() ? "" : ", ") + fit.config.architecture;
  return "fits: " + names;
}

// Where not even the configuration can be read from the shapes: what differs by name from the architecture as it is by
// default.
std::string by_name(const std::string& architecture, const NamedShapes& shapes) {
  try {
    const ShapesOnly without_elements;
    Differences differences(*build_model({.architecture = architecture}), shapes);
    differences.misshaped.clear();
    return differences.count() ? " (" + differences.text() + ")" : "";
  } catch (const Error&) {
    return "";  // it has no default: the image size must be known, say
  }
}

// The configuration of the model in a file: the file's own, else what the shapes of `architecture` tell; the tensors
// are then renamed.
ModelConfig config_of(SafeTensors& file, const std::string& path, const std::string& architecture) {
  if (auto config = ModelConfig::from_map(file.metadata)) {
    require_usage(architecture.empty() || architecture == config->architecture, "{} holds a {}, not a {}", path,
                  config->architecture, architecture);
    return *config;
  }
  require_usage(!architecture.empty(), "{} has no configuration of a model: name its architecture ({})", path,
                suggestion(shapes_of(file.tensors)));
  std::vector<std::string> names;
  for (const auto& [name, tensor] : file.tensors) names.push_back(name);
  const auto ours = names_of(names, architecture);
  for (auto& [name, tensor] : file.tensors) name = ours.at(name);
  const NamedShapes shapes = shapes_of(file.tensors);
  try {
    return infer_config(architecture, shapes);
  } catch (const Error& e) {
    fail("{}: {}{}", path, e.what(), by_name(architecture, shapes));
  }
}

}  // namespace

NamedTensors state(const Module& module) {
  NamedTensors all;
  for (const auto& [name, p] : module.named_parameters()) all.emplace_back(name, p->value);
  for (const auto& [name, b] : module.named_buffers()) all.emplace_back(name, b->value);
  return all;
}

void load_state(Module& module, const NamedTensors& tensors, const std::string& source) {
  const Differences differences(module, shapes_of(tensors));
  require(differences.count() == 0, "{} does not fit the model: {}", source, differences.text());
  for (const auto& [name, tensor] : tensors) {
    const int64_t at = is_floating(tensor.dtype()) ? backend_of(tensor).first_non_finite(tensor) : -1;
    require(at < 0, "{}: {} has a NaN or an infinity, first at its element {}", source, name, at);
  }
  const std::map<std::string, Tensor> given(tensors.begin(), tensors.end());
  for (auto& [name, tensor] : state(module))
    if (const auto found = given.find(name); found != given.end())
      tensor.copy_from(found->second.reshape(tensor.shape()).to(tensor.device()));
}

SafeTensors model_file(const Model& model, std::map<std::string, std::string> metadata, const NamedTensors& extra) {
  std::erase_if(metadata, [](const auto& entry) { return entry.first.starts_with("model."); });
  metadata.merge(model.config.to_map());
  NamedTensors tensors = state(*model);
  for (auto& [name, tensor] : tensors) tensor = tensor.to(Device::cpu);
  for (const auto& entry : extra) {
    require(entry.first.starts_with("fastntk."), "an extra tensor of a model file must be named 'fastntk.…', got '{}'",
            entry.first);
    tensors.push_back(entry);
  }
  return {std::move(metadata), std::move(tensors)};
}

void save_model(const std::string& path, const Model& model, std::map<std::string, std::string> metadata,
                const NamedTensors& extra) {
  model_file(model, std::move(metadata), extra).save(path);
}

Checkpoint load_model(const std::string& path, const std::string& architecture) {
  SafeTensors file = load_weights(path);
  std::erase_if(file.tensors, [](const auto& named) { return named.first.starts_with("fastntk."); });
  Model model = build_model(config_of(file, path, architecture));
  const auto is_double = [](const auto& named) { return named.second.dtype() == DType::float64; };
  if (std::any_of(file.tensors.begin(), file.tensors.end(), is_double)) model->to(DType::float64);
  if (const auto& rename = find_architecture(model.config.architecture).rename)
    for (auto& [name, tensor] : file.tensors) name = rename(name);
  load_state(*model, file.tensors, path);
  return {std::move(model), std::move(file.metadata)};
}

std::map<std::string, std::string> names_of(const std::vector<std::string>& names, const std::string& architecture) {
  const auto& rename = find_architecture(architecture).rename;
  size_t common = 0;  // characters that wrappers have put before every name
  const auto all_begin_with = [&](std::string_view prefix) {
    return !names.empty() && std::all_of(names.begin(), names.end(), [&](const std::string& name) {
      return std::string_view(name).substr(common).starts_with(prefix);
    });
  };
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view prefix : {"module.", "_orig_mod.", "model."})
      if (all_begin_with(prefix)) common += prefix.size(), again = true;
  }
  std::map<std::string, std::string> result, back;
  for (const std::string& name : names) {
    const std::string inner = name.substr(common), ours = rename ? rename(inner) : inner;
    const auto [at, added] = back.emplace(ours, name);
    require(added, "both {} and {} would be {} of {}", at->second, name, ours, architecture);
    result[name] = ours;
  }
  return result;
}

std::vector<Fit> fitting_architectures(const NamedShapes& shapes) {
  const ShapesOnly without_elements;
  std::vector<Fit> fits;
  for (const std::string& name : architecture_names()) {
    try {
      const NamedShapes ours = renamed(shapes, name);
      Fit fit{.config = infer_config(name, ours)};
      const Differences differences(*build_model(fit.config), ours);
      fit.differences = differences.count();
      fit.text = differences.text();
      fits.push_back(std::move(fit));
    } catch (const Error&) {
      // The shapes are not of this architecture: that is what is being asked.
    }
  }
  std::stable_sort(fits.begin(), fits.end(), [](const Fit& a, const Fit& b) { return a.differences < b.differences; });
  return fits;
}

}  // namespace fastntk
