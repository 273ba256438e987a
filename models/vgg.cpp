#include "models/vgg.h"

#include <algorithm>

#include "models/architectures.h"
#include "models/regularisation.h"

namespace fastntk {
namespace {

constexpr int64_t side = 7;  // of the features that the classifier sees

std::unique_ptr<Module> features(const VggShape& shape, int64_t& out) {
  auto layers = std::make_unique<Sequential>();
  int64_t in = shape.channels;
  out = shape.width;
  for (size_t s = 0; s < shape.convolutions.size(); s++) {
    out = shape.width * std::min<int64_t>(int64_t{1} << s, 8);
    for (int64_t i = 0; i < shape.convolutions[s]; i++) {
      layers->append(std::make_unique<Conv2d>(in, out, 3, Conv2dOptions{.padding = {1, 1}}, true));
      layers->append(std::make_unique<BatchNorm2d>(out));
      layers->append(std::make_unique<Relu>());
      in = out;
    }
    layers->append(std::make_unique<MaxPool2d>(Pool2dOptions{}));
  }
  return layers;
}

ModelConfig infer_vgg(const std::string& name, const NamedShapes& shapes) {
  const Shape& stem = shape_in(shapes, "features.0.weight", 4, name);
  const Shape& head = shape_in(shapes, "classifier.6.weight", 2, name);
  ModelConfig config{.architecture = name, .classes = head[0], .channels = stem[1]};
  config.options = {{"width", std::to_string(stem[0])}, {"hidden", std::to_string(head[1])}};
  return config;
}

// timm's classifier: two convolutions and a linear layer.
std::string from_timm(const std::string& name) {
  for (const auto& [theirs, ours] : {std::pair{"pre_logits.fc1.", "classifier.0."},
                                     {"pre_logits.fc2.", "classifier.3."},
                                     {"head.fc.", "classifier.6."}})
    if (name.starts_with(theirs)) return ours + name.substr(std::string_view(theirs).size());
  return name;
}

Architecture architecture(const std::string& depth, const std::vector<int64_t>& convolutions) {
  const std::string name = "vgg" + depth + "_bn";
  return {.name = name,
          .description = "VGG-" + depth + " with batch norm",
          .options = {{"width", "64"}, {"hidden", "4096"}, {"dropout", "0.5"}},
          .build =
              [convolutions](const ModelConfig& c) {
                return std::make_unique<Vgg>(VggShape{.convolutions = convolutions,
                                                      .width = c.positive_option("width"),
                                                      .hidden = c.positive_option("hidden"),
                                                      .dropout = number_option(c, "dropout", 0, 0.99),
                                                      .channels = c.channels,
                                                      .classes = c.classes});
              },
          .infer = [name](const NamedShapes& shapes) { return infer_vgg(name, shapes); },
          .rename = from_timm};
}

}  // namespace

Vgg::Vgg(const VggShape& shape) : channels_(shape.channels) {
  int64_t out = 0;
  features_ = &add_child("features", features(shape, out));
  auto classifier = std::make_unique<Sequential>();
  classifier->append(std::make_unique<Linear>(out * side * side, shape.hidden));
  classifier->append(std::make_unique<Relu>());
  classifier->append(std::make_unique<Dropout>(shape.dropout));
  classifier->append(std::make_unique<Linear>(shape.hidden, shape.hidden));
  classifier->append(std::make_unique<Relu>());
  classifier->append(std::make_unique<Dropout>(shape.dropout));
  classifier->append(std::make_unique<Linear>(shape.hidden, shape.classes));
  classifier_ = &add_child("classifier", std::move(classifier));
}

Variable Vgg::forward(const Pass& pass, const Variable& x) const {
  require(x.rank() == 4 && x.extent(3) == channels_ && x.dtype() == dtype(),
          "this VGG takes {} images [N, H, W, {}], got {}", name_of(dtype()), channels_, x.value.describe());
  const Variable y = adaptive_average_pool2d(features_->forward(pass, x), side, side);
  return classifier_->forward(pass, flatten_image(y));
}

std::vector<Architecture> vgg_architectures() {
  return {architecture("11", {1, 1, 2, 2, 2}), architecture("13", {2, 2, 2, 2, 2}), architecture("16", {2, 2, 3, 3, 3}),
          architecture("19", {2, 2, 4, 4, 4})};
}

}  // namespace fastntk
