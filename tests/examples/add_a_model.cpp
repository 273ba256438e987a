// docs/add-a-model.md, followed literally: SqueezeNet 1.1 with the names of torchvision.
#include <fmt/core.h>

#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/random.h"
#include "models/layers.h"
#include "models/registry.h"
#include "unlearn/jacobian.h"

using namespace fastntk;

namespace {

// Iandola et al., "SqueezeNet", 2016: a 1×1 convolution to few channels, then 1×1 and 3×3 side by side.
class Fire final : public Module {
 public:
  Fire(int64_t in, int64_t squeeze, int64_t expand)
      : squeeze_(add_child("squeeze", std::make_unique<Conv2d>(in, squeeze, 1, Conv2dOptions{}, true))),
        narrow_(add_child("expand1x1", std::make_unique<Conv2d>(squeeze, expand, 1, Conv2dOptions{}, true))),
        wide_(add_child("expand3x3", std::make_unique<Conv2d>(squeeze, expand, 3, padded, true))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable s = relu(squeeze_.forward(pass, x));
    return concat({relu(narrow_.forward(pass, s)), relu(wide_.forward(pass, s))}, -1);  // channels are last
  }

 private:
  static constexpr Conv2dOptions padded{.padding = {1, 1}};
  const Conv2d &squeeze_, &narrow_, &wide_;
};

class SqueezeNet final : public Module {
 public:
  SqueezeNet(int64_t channels, int64_t classes) {
    auto features = std::make_unique<Sequential>();
    const auto pool = [&] { features->append(std::make_unique<MaxPool2d>(Pool2dOptions{.kernel = {3, 3}})); };
    features->append(std::make_unique<Conv2d>(channels, 64, 3, Conv2dOptions{.stride = {2, 2}}, true));
    features->append(std::make_unique<Relu>());
    pool();
    int64_t in = 64;
    const int64_t squeezes[] = {16, 16, 0, 32, 32, 0, 48, 48, 64, 64};  // 0: a pool
    for (const int64_t squeeze : squeezes) {
      if (!squeeze) {
        pool();
        continue;
      }
      features->append(std::make_unique<Fire>(in, squeeze, 4 * squeeze));
      in = 8 * squeeze;
    }
    features_ = &add_child("features", std::move(features));
    auto classifier = std::make_unique<Sequential>();
    classifier->append(std::make_unique<Identity>());  // torchvision has dropout here, so the convolution is "1"
    classifier->append(std::make_unique<Conv2d>(in, classes, 1, Conv2dOptions{}, true));
    classifier_ = &add_child("classifier", std::move(classifier));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    return GlobalAveragePool().forward(pass, relu(classifier_->forward(pass, features_->forward(pass, x))));
  }
  std::string head() const override { return "classifier.1"; }

 private:
  class Identity final : public Module {
   public:
    Variable forward(const Pass&, const Variable& x) const override { return x; }
  };
  const Sequential* features_;
  const Sequential* classifier_;
};

void register_squeezenet() {
  register_architecture(
      {.name = "squeezenet1_1",
       .description = "SqueezeNet 1.1, torchvision's",
       .options = {},
       .build = [](const ModelConfig& c) { return std::make_unique<SqueezeNet>(c.channels, c.classes); },
       // From a checkpoint that says nothing about itself: what its shapes tell.
       .infer =
           [](const NamedShapes& shapes) {
             const auto first = shapes.find("features.0.weight"), last = shapes.find("classifier.1.weight");
             require(first != shapes.end() && last != shapes.end() && last->second[1] == 512,
                     "these are not the parameters of SqueezeNet 1.1");
             return ModelConfig{
                 .architecture = "squeezenet1_1", .classes = last->second[0], .channels = first->second[1]};
           }});
}

}  // namespace

int main() {
  register_squeezenet();
  const Model model = make_model({.architecture = "squeezenet1_1", .classes = 10}, /*seed=*/1);
  const Tensor images = Random(2).normal_tensor({2, 63, 63, 3});
  const Subset subset = choose(*model, "features.12.squeeze.*,bias");
  const Jacobian j = jacobian(*model, subset, images);
  fmt::print("{} parameters, logits {}, rows {}\n", model->parameter_elements(), j.logits.shape().str(),
             j.rows.shape().str());
  NamedShapes shapes;
  for (const auto& [name, p] : model->named_parameters()) shapes[name] = p->value.shape();
  // torchvision's has 1,235,496 with 1000 classes, of which 513,000 are the classifier's.
  return infer_config("squeezenet1_1", shapes).classes == 10 && model->parameter_elements() == 727626 ? 0 : 1;
}
