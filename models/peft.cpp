#include "models/peft.h"

#include <algorithm>
#include <set>

#include "engine/parse_number.h"
#include "models/layers.h"
#include "models/transformer.h"

namespace fastntk {
namespace {

// Iterative matching with one point to come back to: the last * seen.
bool matches(const std::string& pattern, const std::string& name) {
  size_t p = 0, n = 0, star = std::string::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*') {
      p++, n++;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++, resume = n;
    } else if (star != std::string::npos) {
      p = star + 1, n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') p++;
  return p == pattern.size();
}

bool is_addition(const std::string& kind) {
  return kind == "prompt" || kind == "prompt-deep" || kind == "prompt-frame" || kind == "lora" || kind == "adapter";
}

// Whether a parameter belongs to what was added to a model under this kind.
bool is_added(const std::string& kind, const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);
  if (kind == "prompt" || kind == "prompt-deep") return name.starts_with("prompt.");
  if (kind == "prompt-frame") return name.starts_with("frame.");
  if (kind == "lora") return last == "lora_A" || last == "lora_B";
  return kind == "adapter" && name.find(".adapter.") != std::string::npos;
}

// "conv1.* (1), bn1.* (2), layer1.* (18)": a model's parameters by the first component of their names.
std::string overview(const std::vector<Named<const Parameter>>& parameters) {
  std::vector<std::pair<std::string, int>> groups;
  for (const auto& [name, p] : parameters) {
    const size_t dot = name.find('.');
    const std::string group = dot == std::string::npos ? name : name.substr(0, dot) + ".*";
    if (groups.empty() || groups.back().first != group) groups.emplace_back(group, 0);
    groups.back().second++;
  }
  std::string text;
  for (const auto& [group, count] : groups) text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", group, count);
  return text;
}

// Whether a parameter belongs to a part of a specification.
class Chooser {
 public:
  explicit Chooser(const Module& model) : head_(model.head()) {
    for (const auto& [name, module] : model.named_modules())
      if (dynamic_cast<const BatchNorm2d*>(module))
        batch_norms_.insert(name.empty() ? "" : name + ".");
      else if (dynamic_cast<const LayerNorm*>(module))
        layer_norms_.insert(name.empty() ? "" : name + ".");
  }
  bool contains(const SubsetPart& part, const std::string& name) const {
    const std::string prefix = name.substr(0, name.rfind('.') + 1);
    if (part.kind == "all") return true;
    if (part.kind == "bn") return batch_norms_.count(prefix) > 0;
    if (part.kind == "ln") return layer_norms_.count(prefix) > 0;
    if (part.kind == "head") return !head_.empty() && name.starts_with(head_ + ".");
    if (part.kind == "bias" || part.kind == "bitfit") return name == prefix + "bias";
    return is_addition(part.kind) ? is_added(part.kind, name) : matches(part.text, name);
  }

 private:
  std::string head_;
  std::set<std::string> batch_norms_, layer_norms_;
};

}  // namespace

std::vector<SubsetPart> subset_parts(const std::string& specification) {
  std::vector<SubsetPart> parts;
  std::string text;
  for (const char c : specification + "+") {
    if (c != '+' && c != ',') {
      if (c != ' ') text += c;
      continue;
    }
    require_usage(!text.empty(), "the parameter subset '{}' has an empty part", specification);
    const size_t colon = text.find(':');
    SubsetPart part{text, text.substr(0, colon), std::nullopt};
    if (colon != std::string::npos) {
      const int64_t number = parse_number<int64_t>(std::string_view(text).substr(colon + 1)).value_or(0);
      require_usage(is_addition(part.kind) && number > 0,
                    "'{}' is no part of a parameter subset: prompt, prompt-deep, prompt-frame, lora and adapter take a "
                    "positive number after a colon",
                    text);
      part.number = number;
    }
    parts.push_back(std::move(part));
    text.clear();
  }
  return parts;
}

int64_t addition_size(const Module& model, const std::string& kind) {
  int64_t size = 0;
  bool deep = false, several_blocks = false;  // prompts of one block are deep as well
  for (const auto& [name, p] : model.named_parameters()) {
    deep |= name == "prompt.1", several_blocks |= name.starts_with("blocks.1.");
    if (size == 0 && is_added(kind, name)) size = p->value.extent(0);
  }
  return kind == "prompt-deep" && several_blocks && !deep ? 0 : size;
}

Subset choose(const Module& model, const std::string& specification) {
  const auto parameters = model.named_parameters();
  const Chooser chooser(model);
  std::vector<bool> chosen(parameters.size(), false);
  for (const SubsetPart& part : subset_parts(specification)) {
    const int64_t size = is_addition(part.kind) ? addition_size(model, part.kind) : 0;
    require_usage(!is_addition(part.kind) || size > 0, "'{}' of a model that has none: fine-tuning adds it", part.text);
    require_usage(!part.number || *part.number == size, "'{}' of a model that has {}:{}", part.text, part.kind, size);
    bool any = false;
    for (size_t i = 0; i < parameters.size(); i++) {
      if (!chooser.contains(part, parameters[i].first)) continue;
      chosen[i] = any = true;
    }
    require_usage(any,
                  "no parameter belongs to '{}': known subsets are bn, ln, head, bias, bitfit and all, prompt, "
                  "prompt-deep, prompt-frame, lora and adapter, and the parameters are {}",
                  part.text, overview(parameters));
  }
  Subset subset{specification, {}};
  for (size_t i = 0; i < parameters.size(); i++)
    if (chosen[i])
      subset.entries.push_back({i, parameters[i].first, parameters[i].second->value.shape(), subset.size()});
  return subset;
}

std::string Subset::table() const {
  size_t width = 9;
  for (const Entry& e : entries) width = std::max(width, e.name.size());
  std::string text = fmt::format("{:<{}}  {:<18} {:>10} {:>10}\n", "parameter", width, "shape", "offset", "count");
  for (const Entry& e : entries)
    text += fmt::format("{:<{}}  {:<18} {:>10} {:>10}\n", e.name, width, e.shape.str(), e.offset, e.shape.elements());
  return text + fmt::format("{}: {} parameter tensors, P = {}\n", specification, entries.size(), size());
}

std::vector<const Parameter*> parameters_of(const Module& model, const Subset& subset) {
  const auto all = model.named_parameters();
  std::vector<const Parameter*> parameters;
  for (const Subset::Entry& e : subset.entries) {
    require(e.index < all.size() && all[e.index].first == e.name && all[e.index].second->value.shape() == e.shape,
            "the parameter subset '{}' was chosen on another model: {} {} is not in this one", subset.specification,
            e.name, e.shape.str());
    parameters.push_back(all[e.index].second);
  }
  return parameters;
}

Tensor gather(const Module& model, const Subset& subset) {
  const auto parameters = parameters_of(model, subset);
  Tensor theta({subset.size()}, DType::float64);
  for (size_t i = 0; i < parameters.size(); i++) {
    const auto& [index, name, shape, offset] = subset.entries[i];
    theta.slice(0, offset, offset + shape.elements())
        .copy_from(parameters[i]->value.reshape({shape.elements()}).to(Device::cpu));
  }
  return theta;
}

void scatter(Module& model, const Subset& subset, const Tensor& theta) {
  const auto parameters = parameters_of(model, subset);
  require(theta.shape() == Shape{subset.size()}, "the parameter subset '{}' has P = {}, got a vector {}",
          subset.specification, subset.size(), theta.shape().str());
  for (size_t i = 0; i < parameters.size(); i++) {
    const auto& [index, name, shape, offset] = subset.entries[i];
    Tensor value = parameters[i]->value;  // another handle of the same elements
    value.copy_from(theta.slice(0, offset, offset + shape.elements()).reshape(shape).to(value.device()));
  }
}

}  // namespace fastntk
