#include "models/resnet.h"

#include "engine/ops/reduce.h"
#include "models/architectures.h"

namespace fastntk {
namespace {

std::unique_ptr<Conv2d> convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t groups = 1) {
  const int64_t padding = kernel / 2;
  return std::make_unique<Conv2d>(
      in, out, kernel, Conv2dOptions{.stride = {stride, stride}, .padding = {padding, padding}, .groups = groups});
}

// Channels of the 3×3 convolution of a bottleneck.
int64_t inner_channels(const ResNetShape& shape, int64_t planes) {
  const int64_t inner = planes * shape.width_per_group / 64;
  require(inner > 0 && planes * shape.width_per_group % 64 == 0,
          "a ResNet of width {} cannot have {} channels per group: {} · {} is no multiple of 64", shape.width,
          shape.width_per_group, planes, shape.width_per_group);
  return inner * shape.groups;
}

// relu(shortcut(x) + F(x)), F = convolutions with batch norm and ReLU between them.
class Block final : public Module {
 public:
  // `in` channels to `planes` · expansion; the first 3×3 convolution has the stride.
  Block(const ResNetShape& shape, int64_t in, int64_t planes, int64_t stride)
      : in_(in), out_(shape.bottleneck ? 4 * planes : planes), stride_(stride) {
    if (shape.bottleneck) {
      const int64_t inner = inner_channels(shape, planes);
      add_unit(convolution(in, inner, 1, 1), inner);
      add_unit(convolution(inner, inner, 3, stride, shape.groups), inner);
      add_unit(convolution(inner, out_, 1, 1), out_);
    } else {
      add_unit(convolution(in, planes, 3, stride), planes);
      add_unit(convolution(planes, planes, 3, 1), planes);
    }
    if ((in_ == out_ && stride == 1) || shape.shortcut == Shortcut::A) return;
    auto downsample = std::make_unique<Sequential>();
    downsample->append(convolution(in, out_, 1, stride));
    downsample->append(std::make_unique<BatchNorm2d>(out_));
    downsample_ = &add_child("downsample", std::move(downsample));
  }

  Variable forward(const Pass& pass, const Variable& x) const override {
    return pass.block(*this, {x}, [this](const Pass& p, const std::vector<Variable>& in) { return units(p, in[0]); });
  }

 private:
  Variable units(const Pass& pass, const Variable& x) const {
    const Variable residual = shortcut(pass, x);
    Variable y = x;
    for (const auto& [conv, norm] : units_) {
      const bool last = norm == units_.back().second;
      y = norm->forward(pass, conv->forward(pass, y), last ? residual : Variable(), true);
    }
    return y;
  }

  void add_unit(std::unique_ptr<Conv2d> convolution, int64_t channels) {
    const std::string number = std::to_string(units_.size() + 1);
    const Conv2d& conv = add_child("conv" + number, std::move(convolution));
    units_.emplace_back(&conv, &add_child("bn" + number, std::make_unique<BatchNorm2d>(channels)));
  }

  Variable shortcut(const Pass& pass, const Variable& x) const {
    if (downsample_) return downsample_->forward(pass, x);
    Variable y = x;
    if (stride_ != 1) y = slice(slice(y, -3, 0, y.extent(-3), stride_), -2, 0, y.extent(-2), stride_);
    const int64_t added = out_ - in_;
    return added ? pad(y, -1, added / 2, added - added / 2) : y;
  }

  int64_t in_, out_, stride_;
  std::vector<std::pair<const Conv2d*, const BatchNorm2d*>> units_;
  const Sequential* downsample_ = nullptr;
};

std::unique_ptr<Conv2d> stem(const ResNetShape& shape) {
  require(shape.channels > 0 && shape.width > 0 && shape.classes > 0 && !shape.blocks.empty(),
          "a ResNet needs channels, width, classes and stages, got {}, {}, {} and {}", shape.channels, shape.width,
          shape.classes, shape.blocks.size());
  require(shape.bottleneck || (shape.groups == 1 && shape.width_per_group == 64),
          "only ResNets of bottlenecks have groups and a width per group, got {} and {}", shape.groups,
          shape.width_per_group);
  const bool imagenet = shape.stem == Stem::imagenet;
  return convolution(shape.channels, shape.width, imagenet ? 7 : 3, imagenet ? 2 : 1);
}

ResNetShape shape_of(ResNetShape shape, const ModelConfig& config) {
  const std::string &shortcut = config.option("shortcut"), &stem = config.option("stem");
  require_usage(shortcut == "A" || shortcut == "B", "{}: shortcut is A or B, got '{}'", config.architecture, shortcut);
  require_usage(stem == "imagenet" || stem == "cifar", "{}: stem is imagenet or cifar, got '{}'", config.architecture,
                stem);
  shape.shortcut = shortcut == "A" ? Shortcut::A : Shortcut::B;
  shape.stem = stem == "imagenet" ? Stem::imagenet : Stem::cifar;
  shape.width = config.positive_option("width");
  shape.channels = config.channels;
  shape.classes = config.classes;
  return shape;
}

// What the stem, the first shortcut and the classifier tell. Whether the rest fits is found when the tensors are
// compared with the model one by one.
ModelConfig infer_resnet(const std::string& name, const NamedShapes& shapes) {
  const Shape& stem = shape_in(shapes, "conv1.weight", 4, name);
  require(stem[2] == 7 || stem[2] == 3, "not a checkpoint of {}: its conv1.weight {} is neither 7x7 nor 3x3", name,
          stem.str());
  ModelConfig config{.architecture = name, .classes = shape_in(shapes, "fc.weight", 2, name)[0], .channels = stem[1]};
  config.options = {{"width", std::to_string(stem[0])},
                    {"stem", stem[2] == 7 ? "imagenet" : "cifar"},
                    {"shortcut", shapes.count("layer2.0.downsample.0.weight") ? "B" : "A"}};
  return config;
}

Architecture architecture(const std::string& name, const std::string& description, const ResNetShape& shape) {
  return {.name = name,
          .description = description,
          .options = {{"width", std::to_string(shape.width)},
                      {"shortcut", "B"},
                      {"stem", shape.stem == Stem::imagenet ? "imagenet" : "cifar"}},
          .build = [shape](const ModelConfig& c) { return std::make_unique<ResNet>(shape_of(shape, c)); },
          .infer = [name](const NamedShapes& shapes) { return infer_resnet(name, shapes); }};
}

}  // namespace

ResNet::ResNet(const ResNetShape& shape)
    : shape_(shape),
      conv_(add_child("conv1", stem(shape))),
      norm_(add_child("bn1", std::make_unique<BatchNorm2d>(shape.width))) {
  int64_t in = shape.width, width = shape.width;
  for (size_t s = 0; s < shape.blocks.size(); s++, width *= 2) {
    auto stage = std::make_unique<Sequential>();
    for (int64_t b = 0; b < shape.blocks[s]; b++) {
      stage->append(std::make_unique<Block>(shape, in, width, s > 0 && b == 0 ? 2 : 1));
      in = shape.bottleneck ? 4 * width : width;
    }
    stages_.push_back(&add_child("layer" + std::to_string(s + 1), std::move(stage)));
  }
  fc_ = &add_child("fc", std::make_unique<Linear>(in, shape.classes));
}

Variable ResNet::forward(const Pass& pass, const Variable& x) const {
  require(x.rank() == 4 && x.extent(3) == shape_.channels && x.dtype() == dtype(),
          "this ResNet takes {} images [N, H, W, {}], got {}", name_of(dtype()), shape_.channels, x.value.describe());
  Variable y = norm_.forward(pass, conv_.forward(pass, x), {}, true);
  if (shape_.stem == Stem::imagenet) y = max_pool2d(y, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
  for (const Sequential* stage : stages_) y = stage->forward(pass, y);
  return fc_->forward(pass, GlobalAveragePool().forward(pass, y));
}

std::vector<Architecture> resnet_architectures() {
  std::vector<Architecture> all;
  for (const int64_t n : {3, 5, 7, 9}) {
    const std::string depth = std::to_string(6 * n + 2);
    all.push_back(architecture("resnet" + depth,
                               "ResNet-" + depth + " for CIFAR-sized images, three stages of 3x3 blocks",
                               {.blocks = {n, n, n}, .width = 16, .stem = Stem::cifar}));
  }
  const std::vector<int64_t> b18{2, 2, 2, 2}, b34{3, 4, 6, 3}, b101{3, 4, 23, 3}, b152{3, 8, 36, 3};
  all.push_back(architecture("resnet18", "ResNet-18", {.blocks = b18}));
  all.push_back(architecture("resnet34", "ResNet-34", {.blocks = b34}));
  const auto bottlenecks = [&](const std::string& name, const std::string& description,
                               const std::vector<int64_t>& blocks, int64_t groups = 1, int64_t width_per_group = 64) {
    all.push_back(
        architecture(name, description,
                     {.blocks = blocks, .bottleneck = true, .groups = groups, .width_per_group = width_per_group}));
  };
  bottlenecks("resnet50", "ResNet-50 v1.5", b34);
  bottlenecks("resnet101", "ResNet-101 v1.5", b101);
  bottlenecks("resnet152", "ResNet-152 v1.5", b152);
  bottlenecks("resnext50_32x4d", "ResNeXt-50, 32 groups of 4 channels", b34, 32, 4);
  bottlenecks("resnext101_32x8d", "ResNeXt-101, 32 groups of 8 channels", b101, 32, 8);
  bottlenecks("resnext101_64x4d", "ResNeXt-101, 64 groups of 4 channels", b101, 64, 4);
  bottlenecks("wide_resnet50_2", "Wide ResNet-50, twice the channels in 3x3 convolutions", b34, 1, 128);
  bottlenecks("wide_resnet101_2", "Wide ResNet-101, twice the channels in 3x3 convolutions", b101, 1, 128);
  return all;
}

}  // namespace fastntk
