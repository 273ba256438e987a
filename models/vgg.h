// VGG with batch norm: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition",
// ICLR 2015. Parameter names are those of torchvision's vgg11_bn … vgg19_bn.
#pragma once
#include "models/layers.h"

namespace fastntk {

struct VggShape {
  std::vector<int64_t> convolutions = {1, 1, 2, 2, 2};  ///< per stage; each stage ends with 2×2 max pooling
  int64_t width = 64;     ///< channels of the first stage; each stage doubles them, up to eight times as many
  int64_t hidden = 4096;  ///< features of the two hidden layers of the classifier
  double dropout = 0.5;   ///< rate behind each hidden layer, in train mode
  int64_t channels = 3;
  int64_t classes = 1000;
};

/// [N, H, W, channels], H and W at least 2^stages, → logits [N, classes]. The features are averaged to 7 × 7, whatever
/// the size of the image.
class Vgg final : public Module {
 public:
  explicit Vgg(const VggShape& shape);
  Variable forward(const Pass& pass, const Variable& x) const override;
  std::string head() const override { return "classifier.6"; }

 private:
  int64_t channels_;
  const Module *features_, *classifier_;
};

}  // namespace fastntk
