// Residual networks: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016; with groups,
// Xie et al., "Aggregated residual transformations for deep neural networks" (ResNeXt), CVPR 2017; with more channels
// inside, Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016. Parameter names, and the place of the stride in
// bottlenecks (the 3×3 convolution, "v1.5"), are those of torchvision and timm.
#pragma once
#include "models/layers.h"

namespace fastntk {

/// Where a block changes the shape, its shortcut is A: every stride-th pixel, and zeros for the new channels (half of
/// them before, half after the old ones); or B: a 1×1 convolution and batch norm ("downsample.0", "downsample.1").
enum class Shortcut : uint8_t { A, B };
/// imagenet: 7×7 convolution of stride 2, then 3×3 max pooling of stride 2. cifar: 3×3 convolution of stride 1.
enum class Stem : uint8_t { imagenet, cifar };

struct ResNetShape {
  std::vector<int64_t> blocks = {2, 2, 2,
                                 2};  ///< per stage; each stage after the first halves the image, doubles the width
  bool bottleneck = false;            ///< 1×1, 3×3, 1×1 with four times the width out, instead of 3×3, 3×3
  int64_t width = 64;                 ///< channels of the stem; `planes` of the first stage
  int64_t groups = 1;                 ///< of the 3×3 convolutions of bottlenecks
  int64_t width_per_group = 64;       ///< they have groups · planes · width_per_group / 64 channels
  Shortcut shortcut = Shortcut::B;
  Stem stem = Stem::imagenet;
  int64_t channels = 3;
  int64_t classes = 1000;
};

/// [N, H, W, channels] → logits [N, classes].
class ResNet final : public Module {
 public:
  explicit ResNet(const ResNetShape& shape);
  Variable forward(const Pass& pass, const Variable& x) const override;
  std::string head() const override { return "fc"; }

 private:
  ResNetShape shape_;
  const Conv2d& conv_;
  const BatchNorm2d& norm_;
  std::vector<const Sequential*> stages_;
  const Linear* fc_ = nullptr;
};

}  // namespace fastntk
