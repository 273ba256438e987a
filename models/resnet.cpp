#include "models/resnet.h"

#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

std::unique_ptr<Conv2d> convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  const int64_t padding = kernel / 2;
  return std::make_unique<Conv2d>(in, out, kernel,
                                  Conv2dOptions{.stride = {stride, stride}, .padding = {padding, padding}});
}

// relu(shortcut(x) + F(x)), F = convolutions with batch norm and ReLU between them.
class Block final : public Module {
 public:
  // `in` channels to `width` · expansion; the first 3×3 convolution has the stride.
  Block(const ResNetShape& shape, int64_t in, int64_t width, int64_t stride)
      : in_(in), out_(shape.bottleneck ? 4 * width : width), stride_(stride) {
    if (shape.bottleneck) {
      add_unit(convolution(in, width, 1, 1), width);
      add_unit(convolution(width, width, 3, stride), width);
      add_unit(convolution(width, out_, 1, 1), out_);
    } else {
      add_unit(convolution(in, width, 3, stride), width);
      add_unit(convolution(width, width, 3, 1), width);
    }
    if ((in_ == out_ && stride == 1) || shape.shortcut == Shortcut::A) return;
    auto downsample = std::make_unique<Sequential>();
    downsample->append(convolution(in, out_, 1, stride));
    downsample->append(std::make_unique<BatchNorm2d>(out_));
    downsample_ = &add_child("downsample", std::move(downsample));
  }

  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable residual = shortcut(pass, x);
    Variable y = x;
    for (const auto& [conv, norm] : units_) {
      const bool last = norm == units_.back().second;
      y = norm->forward(pass, conv->forward(pass, y), last ? residual : Variable(), true);
    }
    return y;
  }

 private:
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
  return shape.stem == Stem::imagenet ? convolution(shape.channels, shape.width, 7, 2)
                                      : convolution(shape.channels, shape.width, 3, 1);
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

}  // namespace fastntk
