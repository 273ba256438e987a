// A vision transformer small enough to be computed a second time, by ops that know nothing of what may be left out.
#pragma once
#include "engine/random.h"
#include "models/adapt.h"
#include "models/registry.h"

namespace fastntk {

using Options = std::map<std::string, std::string>;

/// Two blocks of width 8 on images of 12x8 with 3 channels, float64, every parameter away from its initial value.
inline Model small_vit(Options options = {}, uint64_t seed = 1) {
  options.merge(Options{{"width", "8"}, {"depth", "2"}, {"heads", "2"}, {"patch", "4"}, {"mlp-ratio", "2"}});
  Model model = make_model({.architecture = "vit",
                            .classes = 4,
                            .channels = 3,
                            .image_height = 12,
                            .image_width = 8,
                            .options = std::move(options)},
                           seed);
  model->to(DType::float64);
  uint64_t stream = 0;
  for (const auto& [name, p] : model->named_parameters()) {
    const std::vector<double> old = p->value.to_vector<double>();
    const Tensor noise = Random(seed, stream++).normal_tensor(p->value.shape(), DType::float64);
    const std::vector<double> moved = noise.to_vector<double>();
    double* const out = p->value.mutable_data<double>();
    for (size_t i = 0; i < old.size(); i++) out[i] = old[i] + 0.3 * moved[i];
  }
  return model;
}

inline Tensor small_images(int64_t n, uint64_t seed = 7) {
  return Random(seed).normal_tensor({n, 12, 8, 3}, DType::float64);
}

/// All that can be added to a vision transformer, as options.
inline std::vector<Options> kinds_of_vit() {
  return {{},
          {{"pool", "avg"}, {"layer-scale", "0.1"}},
          {{"pool", "avg"}, {"class-token", "no"}, {"qkv-bias", "no"}},
          {{"prompts", "3"}},
          {{"prompts", "3"}, {"prompt-depth", "deep"}},
          {{"prompts", "3"}, {"pool", "avg"}},
          {{"prompts", "2"}, {"prompt-depth", "deep"}, {"pool", "avg"}},
          {{"prompt-frame", "2"}},
          {{"lora", "2"}},
          {{"lora", "2"}, {"lora-alpha", "5"}, {"adapter", "3"}, {"prompts", "1"}},
          {{"depth", "1"}, {"prompts", "3"}}};
}

}  // namespace fastntk
