#include "models/resnetv2.h"

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "models/architectures.h"

namespace fastntk {
namespace {

std::unique_ptr<Conv2d> convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  const int64_t padding = kernel / 2;
  return std::make_unique<Conv2d>(in, out, kernel,
                                  Conv2dOptions{.stride = {stride, stride}, .padding = {padding, padding}});
}

// A level of names around one module.
class Under final : public Module {
 public:
  Under(std::string name, std::unique_ptr<Module> module) : inner_(add_child(std::move(name), std::move(module))) {}
  Variable forward(const Pass& pass, const Variable& x) const override { return inner_.forward(pass, x); }

 private:
  const Module& inner_;
};

// a = relu(norm1(x)); y = s + F(a), F = convolutions with batch norm and ReLU between them; the shortcut s is x, or a
// 1×1 convolution of a.
class PreactBlock final : public Module {
 public:
  // `planes` channels inside, four times as many out of a bottleneck; the first 3×3 convolution has the stride.
  PreactBlock(bool bottleneck, int64_t in, int64_t planes, int64_t stride, bool project) {
    const int64_t out = bottleneck ? 4 * planes : planes;
    if (project)
      downsample_ = &add_child("downsample", std::make_unique<Under>("conv", convolution(in, out, 1, stride)));
    if (bottleneck) {
      add_unit(in, convolution(in, planes, 1, 1));
      add_unit(planes, convolution(planes, planes, 3, stride));
      add_unit(planes, convolution(planes, out, 1, 1));
    } else {
      add_unit(in, convolution(in, planes, 3, stride));
      add_unit(planes, convolution(planes, planes, 3, 1));
    }
  }

  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable a = units_.front().first->forward(pass, x, {}, true);
    Variable y = units_.front().second->forward(pass, a);
    for (size_t i = 1; i < units_.size(); i++)
      y = units_[i].second->forward(pass, units_[i].first->forward(pass, y, {}, true));
    return y + (downsample_ ? downsample_->forward(pass, a) : x);
  }

 private:
  void add_unit(int64_t channels, std::unique_ptr<Conv2d> convolution) {
    const std::string number = std::to_string(units_.size() + 1);
    const BatchNorm2d& norm = add_child("norm" + number, std::make_unique<BatchNorm2d>(channels));
    units_.emplace_back(&norm, &add_child("conv" + number, std::move(convolution)));
  }

  std::vector<std::pair<const BatchNorm2d*, const Conv2d*>> units_;
  const Module* downsample_ = nullptr;
};

// A linear layer on [N, I] whose weight is that of a 1×1 convolution, [O, I, 1, 1]. Initially normal with deviation
// 0.01, the bias zero.
class PointwiseClassifier final : public Module {
 public:
  PointwiseClassifier(int64_t in, int64_t out)
      : weight_(add_parameter("weight", {out, in, 1, 1}, Initial::normal(0.01))),
        bias_(add_parameter("bias", {out}, Initial::constant(0))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable w = pass.parameter(weight_);
    const Variable y =
        linear(reshape(x, {x.extent(0), 1, x.extent(1)}), reshape(w, {w.extent(0), w.extent(1), w.extent(2)}));
    return reshape(y, {y.extent(0), y.extent(2)}) + pass.parameter(bias_);
  }

 private:
  const Parameter &weight_, &bias_;
};

std::unique_ptr<Module> stage(const PreactResNetShape& shape, int64_t& in, int64_t planes, int64_t blocks,
                              int64_t stride) {
  auto sequence = std::make_unique<Sequential>();
  for (int64_t b = 0; b < blocks; b++) {
    const bool first = b == 0;
    const int64_t out = shape.bottleneck ? 4 * planes : planes;
    const bool project = first && (shape.bottleneck || stride != 1 || in != out);
    sequence->append(std::make_unique<PreactBlock>(shape.bottleneck, in, planes, first ? stride : 1, project));
    in = out;
  }
  return std::make_unique<Under>("blocks", std::move(sequence));
}

ModelConfig infer_preact(const std::string& name, const NamedShapes& shapes) {
  const Shape& stem = shape_in(shapes, "stem.conv.weight", 4, name);
  ModelConfig config{
      .architecture = name, .classes = shape_in(shapes, "head.fc.weight", 4, name)[0], .channels = stem[1]};
  config.options = {{"width", std::to_string(stem[0])}};
  return config;
}

Architecture architecture(const std::string& depth, const std::vector<int64_t>& blocks, bool bottleneck) {
  const std::string name = "resnetv2_" + depth;
  const PreactResNetShape shape{.blocks = blocks, .bottleneck = bottleneck};
  return {.name = name,
          .description = "ResNet-" + depth + " with pre-activation, batch norm",
          .options = {{"width", "64"}},
          .build =
              [shape](const ModelConfig& c) {
                PreactResNetShape ours = shape;
                ours.width = c.positive_option("width");
                ours.channels = c.channels;
                ours.classes = c.classes;
                return std::make_unique<PreactResNet>(ours);
              },
          .infer = [name](const NamedShapes& shapes) { return infer_preact(name, shapes); }};
}

}  // namespace

PreactResNet::PreactResNet(const PreactResNetShape& shape)
    : channels_(shape.channels),
      stem_(&add_child("stem", std::make_unique<Under>("conv", convolution(shape.channels, shape.width, 7, 2)))) {
  auto stages = std::make_unique<Sequential>();
  int64_t in = shape.width, planes = shape.width;
  for (size_t s = 0; s < shape.blocks.size(); s++, planes *= 2)
    stages->append(stage(shape, in, planes, shape.blocks[s], s == 0 ? 1 : 2));
  stages_ = &add_child("stages", std::move(stages));
  norm_ = &add_child("norm", std::make_unique<BatchNorm2d>(in));
  classifier_ =
      &add_child("head", std::make_unique<Under>("fc", std::make_unique<PointwiseClassifier>(in, shape.classes)));
}

Variable PreactResNet::forward(const Pass& pass, const Variable& x) const {
  require(x.rank() == 4 && x.extent(3) == channels_ && x.dtype() == dtype(),
          "this ResNet takes {} images [N, H, W, {}], got {}", name_of(dtype()), channels_, x.value.describe());
  Variable y = max_pool2d(stem_->forward(pass, x), {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
  y = norm_->forward(pass, stages_->forward(pass, y), {}, true);
  return classifier_->forward(pass, GlobalAveragePool().forward(pass, y));
}

std::vector<Architecture> preact_resnet_architectures() {
  return {architecture("18", {2, 2, 2, 2}, false), architecture("34", {3, 4, 6, 3}, false),
          architecture("50", {3, 4, 6, 3}, true), architecture("101", {3, 4, 23, 3}, true),
          architecture("152", {3, 8, 36, 3}, true)};
}

}  // namespace fastntk
