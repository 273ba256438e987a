// Vision transformers: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; names, order and shapes of the
// parameters are those of timm's vision_transformer. Visual prompts: Jia et al., "Visual prompt tuning", ECCV 2022
// (tokens), and Bahng et al., "Exploring visual prompts for adapting large-scale models", 2022 (pixels).
#pragma once
#include "models/layers.h"
#include "models/transformer.h"

namespace fastntk {

/// What the classifier reads: the class token, or the mean of the patches (then there is no `norm` but `fc_norm` after
/// the mean, as in timm).
enum class TokenPool : uint8_t { token, average };

struct VitShape {
  int64_t image_height = 224, image_width = 224;
  int64_t patch = 16;
  int64_t depth = 12;
  BlockShape block;         ///< its drop_path is the last block's; it rises linearly from 0 at the first
  bool class_token = true;  ///< a token beside the patches, with a position of its own
  TokenPool pool = TokenPool::token;
  int64_t channels = 3, classes = 1000;
  /// Tuned tokens beside the others: `prompts` of them at the input, or at the input of every block, where they replace
  /// those that come out of the block before.
  int64_t prompts = 0;
  bool deep_prompts = false;
  int64_t prompt_frame = 0;  ///< pixels: the width of a tuned frame that is added to the images; 0: none

  int64_t patches() const { return (image_height / patch) * (image_width / patch); }
  int64_t tokens() const { return patches() + (class_token ? 1 : 0); }
};

/// [N, H, W, channels] → logits [N, classes].
///
/// Prompts are parameters prompt.0, prompt.1, … [prompts, width], one per block that has any, initially uniform within
/// √(6 / (channels · patch² + width)), as in VPT. Their order among the tokens means nothing to attention; they stand
/// last. The frame is frame.top, frame.bottom [w, W, C], frame.left, frame.right [H − 2w, w, C], zero at the start, so
/// that the model begins as it is without.
class VisionTransformer final : public Module {
 public:
  explicit VisionTransformer(const VitShape& shape);
  Variable forward(const Pass& pass, const Variable& x) const override;
  std::string head() const override { return "head"; }
  bool separates_samples() const override { return true; }

 private:
  class Prompt;
  class Frame;
  class Patches;
  Variable tokens(const Pass& pass, const Variable& x) const;

  VitShape shape_;
  const Parameter* class_token_ = nullptr;
  const Parameter* positions_ = nullptr;
  const Prompt* prompt_ = nullptr;
  const Frame* frame_ = nullptr;
  const Patches* patches_ = nullptr;
  const Dropout* dropout_ = nullptr;
  std::vector<const Block*> blocks_;
  const LayerNorm* norm_ = nullptr;
  const Linear* head_ = nullptr;
};

}  // namespace fastntk
