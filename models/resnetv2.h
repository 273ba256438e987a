// Residual networks with batch norm and ReLU before each convolution: He, Zhang, Ren and Sun, "Identity mappings in
// deep residual networks", ECCV 2016. Parameter names, and the place of the stride in bottlenecks (the 3×3
// convolution), are those of timm's resnetv2_18 … resnetv2_152, which have batch norm and plain convolutions (no weight
// standardisation).
#pragma once
#include "models/layers.h"

namespace fastntk {

struct PreactResNetShape {
  std::vector<int64_t> blocks = {3, 4, 6, 3};  ///< per stage; each stage after the first halves the image
  bool bottleneck = true;  ///< 1×1, 3×3, 1×1 with four times the channels out, instead of 3×3, 3×3
  int64_t width = 64;      ///< channels of the stem and of the first stage's 3×3 convolutions
  int64_t channels = 3;
  int64_t classes = 1000;
};

/// [N, H, W, channels] → logits [N, classes]. The classifier is a 1×1 convolution, "head.fc", on the mean over the
/// image.
class PreactResNet final : public Module {
 public:
  explicit PreactResNet(const PreactResNetShape& shape);
  Variable forward(const Pass& pass, const Variable& x) const override;
  std::string head() const override { return "head.fc"; }

 private:
  int64_t channels_;
  const Module *stem_, *stages_;
  const BatchNorm2d* norm_ = nullptr;
  const Module* classifier_ = nullptr;
};

}  // namespace fastntk
