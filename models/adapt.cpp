#include "models/adapt.h"

#include <array>

namespace fastntk {
namespace {

using Options = std::map<std::string, std::string>;

// A model with more parameters and the values of this one.
Model grown(const Model& model, const std::string& what, const Options& options, uint64_t seed) {
  ModelConfig config = model.config;
  const auto& known = find_architecture(config.architecture).options;
  for (const auto& [name, value] : options) {
    require_usage(known.count(name) > 0, "{} takes no {}: it has no option '{}'", config.architecture, what, name);
    config.options[name] = value;
  }
  Model result = make_model(std::move(config), seed);
  result->to(model->dtype());
  std::map<std::string, Tensor> values;
  for (const auto& [name, p] : std::as_const(*model).named_parameters()) values[name] = p->value;
  for (const auto& [name, b] : std::as_const(*model).named_buffers()) values[name] = b->value;
  const auto copy = [&](const auto& named) {
    for (const auto& [name, to] : named)
      if (const auto found = values.find(name); found != values.end()) to->value.copy_from(found->second);
  };
  copy(result->named_parameters());
  copy(result->named_buffers());
  return result;
}

struct Addition {
  const char* kind;
  int64_t size;  // unless a number says otherwise
  Model (*add)(const Model& model, int64_t size, uint64_t seed);
};
constexpr std::array<Addition, 5> additions{
    {{"prompt", 10, [](const Model& m, int64_t size, uint64_t seed) { return add_prompts(m, size, false, seed); }},
     {"prompt-deep", 10, [](const Model& m, int64_t size, uint64_t seed) { return add_prompts(m, size, true, seed); }},
     {"prompt-frame", 2, add_prompt_frame},
     {"lora", 4, add_lora},
     {"adapter", 16, add_adapters}}};

}  // namespace

Model add_prompts(const Model& model, int64_t count, bool deep, uint64_t seed) {
  require_usage(addition_size(*model, "prompt") == 0, "this {} has prompts already", model.config.architecture);
  return grown(model, "prompts", {{"prompts", std::to_string(count)}, {"prompt-depth", deep ? "deep" : "shallow"}},
               seed);
}
Model add_prompt_frame(const Model& model, int64_t width, uint64_t seed) {
  require_usage(addition_size(*model, "prompt-frame") == 0, "this {} has a frame already", model.config.architecture);
  return grown(model, "prompts around its images", {{"prompt-frame", std::to_string(width)}}, seed);
}
Model add_lora(const Model& model, int64_t rank, uint64_t seed) {
  require_usage(addition_size(*model, "lora") == 0, "this {} has low-rank factors already", model.config.architecture);
  return grown(model, "low-rank factors", {{"lora", std::to_string(rank)}}, seed);
}
Model add_adapters(const Model& model, int64_t width, uint64_t seed) {
  require_usage(addition_size(*model, "adapter") == 0, "this {} has adapters already", model.config.architecture);
  return grown(model, "adapters", {{"adapter", std::to_string(width)}}, seed);
}

Model adapt(const Model& model, const std::string& specification, uint64_t seed) {
  Model result = model.clone();
  for (const SubsetPart& part : subset_parts(specification))
    for (const Addition& addition : additions) {
      if (part.kind != addition.kind) continue;
      if (const int64_t size = addition_size(*result, part.kind); size > 0)
        require_usage(!part.number || *part.number == size, "'{}' for a model that has {}:{} already", part.text,
                      part.kind, size);
      else
        result = addition.add(result, part.number.value_or(addition.size), seed);
    }
  return result;
}

}  // namespace fastntk
