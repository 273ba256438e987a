// A network and samples that train in a moment.
#pragma once
#include <vector>

#include "datasets/samples.h"
#include "engine/random.h"
#include "models/registry.h"

namespace fastntk {

inline constexpr int64_t classes = 3;

inline Model small_resnet(DType dtype = DType::float32, uint64_t seed = 1) {
  Model model =
      make_model({.architecture = "resnet20", .classes = classes, .channels = 1, .options = {{"width", "2"}}}, seed);
  model->to(dtype);
  return model;
}

inline Samples samples(int64_t n, DType dtype = DType::float32) {
  Samples s;
  s.inputs = Random(5).normal_tensor({n, 8, 8, 1}, dtype);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < n; i++) labels.push_back(i % classes), s.ids.push_back(i);
  s.labels = Tensor::from<int64_t>({n}, labels);
  return s;
}

// Everything that a model is, as numbers.
inline std::vector<double> contents(const Module& model) {
  std::vector<double> all;
  const auto add = [&](const Tensor& t) {
    for (const double x : t.to(DType::float64).to_vector<double>()) all.push_back(x);
  };
  for (const auto& [name, p] : model.named_parameters()) add(p->value);
  for (const auto& [name, b] : model.named_buffers()) add(b->value);
  return all;
}

}  // namespace fastntk
