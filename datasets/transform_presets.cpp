// The evaluation transforms of published weights, as torchvision (torchvision.models.*_Weights) and timm
// (timm.get_pretrained_cfg, resized to ⌊size / crop_pct⌋) state them.
#include "datasets/transform.h"

namespace fastntk {
namespace {

struct Preset {
  const char* text;
  std::vector<const char*> names;
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> table{
      {"resize:256:bilinear,crop:224,normalise:imagenet",
       {"torchvision/resnet18-v1",
        "torchvision/resnet34-v1",
        "torchvision/resnet50-v1",
        "torchvision/resnet101-v1",
        "torchvision/resnet152-v1",
        "torchvision/resnext50_32x4d-v1",
        "torchvision/resnext101_32x8d-v1",
        "torchvision/wide_resnet50_2-v1",
        "torchvision/wide_resnet101_2-v1",
        "torchvision/vit_b_16-v1",
        "torchvision/vit_b_32-v1",
        "torchvision/vit_l_32-v1",
        "torchvision/vgg11-v1",
        "torchvision/vgg13-v1",
        "torchvision/vgg16-v1",
        "torchvision/vgg19-v1",
        "torchvision/vgg11_bn-v1",
        "torchvision/vgg13_bn-v1",
        "torchvision/vgg16_bn-v1",
        "torchvision/vgg19_bn-v1",
        "timm/resnext101_32x8d",
        "timm/wide_resnet101_2",
        "timm/vgg11",
        "timm/vgg13",
        "timm/vgg16",
        "timm/vgg19",
        "timm/vgg11_bn",
        "timm/vgg13_bn",
        "timm/vgg16_bn",
        "timm/vgg19_bn"}},
      {"resize:232:bilinear,crop:224,normalise:imagenet",
       {"torchvision/resnet50-v2", "torchvision/resnet101-v2", "torchvision/resnet152-v2",
        "torchvision/resnext50_32x4d-v2", "torchvision/resnext101_32x8d-v2", "torchvision/resnext101_64x4d-v1",
        "torchvision/wide_resnet50_2-v2", "torchvision/wide_resnet101_2-v2"}},
      {"resize:242:bilinear,crop:224,normalise:imagenet", {"torchvision/vit_l_16-v1"}},
      {"resize:384:bicubic,crop:384,normalise:imagenet",
       {"torchvision/vit_b_16-swag-e2e-v1", "timm/deit_base_patch16_384", "timm/deit_base_distilled_patch16_384",
        "timm/deit3_small_patch16_384", "timm/deit3_base_patch16_384", "timm/deit3_large_patch16_384"}},
      {"resize:512:bicubic,crop:512,normalise:imagenet", {"torchvision/vit_l_16-swag-e2e-v1"}},
      {"resize:518:bicubic,crop:518,normalise:imagenet", {"torchvision/vit_h_14-swag-e2e-v1"}},
      {"resize:224:bicubic,crop:224,normalise:imagenet",
       {"torchvision/vit_b_16-swag-linear-v1", "torchvision/vit_l_16-swag-linear-v1",
        "torchvision/vit_h_14-swag-linear-v1"}},
      {"resize:235:bicubic,crop:224,normalise:imagenet",
       {"timm/resnet18", "timm/resnet34", "timm/resnet50", "timm/resnet101", "timm/resnet152", "timm/resnext50_32x4d",
        "timm/resnext101_64x4d"}},
      {"resize:256:bicubic,crop:224,normalise:imagenet",
       {"timm/resnet18d", "timm/resnet34d", "timm/resnet50d", "timm/wide_resnet50_2"}},
      {"resize:269:bicubic,crop:256,normalise:imagenet", {"timm/resnet101d", "timm/resnet152d"}},
      {"resize:248:bicubic,crop:224,normalise:imagenet",
       {"timm/deit_tiny_patch16_224", "timm/deit_small_patch16_224", "timm/deit_base_patch16_224",
        "timm/deit_tiny_distilled_patch16_224", "timm/deit_small_distilled_patch16_224",
        "timm/deit_base_distilled_patch16_224", "timm/deit3_small_patch16_224", "timm/deit3_base_patch16_224",
        "timm/deit3_large_patch16_224", "timm/vit_small_patch8_224"}},
      {"resize:248:bicubic,crop:224,normalise:inception",
       {"timm/vit_tiny_patch16_224", "timm/vit_small_patch16_224", "timm/vit_small_patch32_224",
        "timm/vit_base_patch8_224", "timm/vit_base_patch16_224", "timm/vit_base_patch32_224",
        "timm/vit_large_patch14_224", "timm/vit_large_patch16_224", "timm/vit_large_patch32_224", "timm/resnetv2_18",
        "timm/resnetv2_18d", "timm/resnetv2_34", "timm/resnetv2_34d"}},
      {"resize:235:bicubic,crop:224,normalise:inception", {"timm/resnetv2_50", "timm/resnetv2_101"}},
      {"resize:384:bicubic,crop:384,normalise:inception",
       {"timm/vit_tiny_patch16_384", "timm/vit_small_patch16_384", "timm/vit_small_patch32_384",
        "timm/vit_base_patch16_384", "timm/vit_base_patch32_384", "timm/vit_large_patch16_384",
        "timm/vit_large_patch32_384"}},
  };
  return table;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> transform_presets() {
  std::vector<std::pair<std::string, std::string>> all;
  for (const Preset& preset : presets())
    for (const char* const name : preset.names) all.emplace_back(name, preset.text);
  return all;
}

}  // namespace fastntk
