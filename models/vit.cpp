#include "models/vit.h"

#include <cmath>

#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

void check(const VitShape& s) {
  const BlockShape& b = s.block;
  require_usage(s.channels > 0 && s.classes > 0 && s.depth > 0 && b.width > 0 && b.hidden > 0 && s.patch > 0,
                "a vision transformer needs channels, classes, depth, width, MLP and patch of at least 1, got {}, {}, "
                "{}, {}, {} and {}",
                s.channels, s.classes, s.depth, b.width, b.hidden, s.patch);
  require_usage(b.heads > 0 && b.width % b.heads == 0, "a width of {} cannot be split into {} heads", b.width, b.heads);
  require_usage(
      s.image_height > 0 && s.image_width > 0 && s.image_height % s.patch == 0 && s.image_width % s.patch == 0,
      "images of {}x{} cannot be cut into patches of {}x{}", s.image_height, s.image_width, s.patch, s.patch);
  require_usage(s.class_token || s.pool == TokenPool::average,
                "a vision transformer without a class token must pool by the average");
  require_usage(2 * s.prompt_frame < std::min(s.image_height, s.image_width),
                "a frame of {} pixels leaves nothing of images of {}x{}", s.prompt_frame, s.image_height,
                s.image_width);
}

}  // namespace

// Prompts of the blocks that have any.
class VisionTransformer::Prompt final : public Module {
 public:
  explicit Prompt(const VitShape& s) {
    const double bound = std::sqrt(6.0 / static_cast<double>(s.channels * s.patch * s.patch + s.block.width));
    for (int64_t i = 0; i < (s.deep_prompts ? s.depth : 1); i++)
      of_block_.push_back(&add_parameter(std::to_string(i), {s.prompts, s.block.width}, Initial::uniform(bound)));
  }
  // [1 or N, p, D], undefined where a block has none.
  Variable of(const Pass& pass, size_t block) const {
    return block < of_block_.size() ? pass.parameter(*of_block_[block]) : Variable{};
  }
  Variable forward(const Pass& pass, const Variable&) const override { return of(pass, 0); }

 private:
  std::vector<const Parameter*> of_block_;
};

// x plus a frame of tuned pixels.
class VisionTransformer::Frame final : public Module {
 public:
  explicit Frame(const VitShape& s)
      : height_(s.image_height - 2 * s.prompt_frame), width_(s.image_width - 2 * s.prompt_frame) {
    const int64_t w = s.prompt_frame;
    for (const char* const name : {"top", "bottom"})
      sides_.push_back(&add_parameter(name, {w, s.image_width, s.channels}, Initial::constant(0)));
    for (const char* const name : {"left", "right"})
      sides_.push_back(&add_parameter(name, {height_, w, s.channels}, Initial::constant(0)));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    std::vector<Variable> side;
    int64_t samples = 1;
    for (const Parameter* const p : sides_) {
      side.push_back(pass.parameter(*p));  // [1 or N, rows, columns, C]
      samples = std::max(samples, side.back().extent(0));
    }
    for (Variable& v : side) v = expand(v, Shape{samples} + v.shape().trailing(3));
    const Variable inside =
        Tensor::zeros({}, x.dtype(), x.value.device()).expand({samples, height_, width_, x.extent(3)});
    return x + concat({side[0], concat({side[2], inside, side[3]}, 2), side[1]}, 1);
  }

 private:
  int64_t height_, width_;  // of what it leaves free
  std::vector<const Parameter*> sides_;
};

// "proj": a convolution whose windows are the patches, row by row.
class VisionTransformer::Patches final : public Module {
 public:
  explicit Patches(const VitShape& s)
      : proj_(add_child("proj", std::make_unique<Conv2d>(s.channels, s.block.width, s.patch,
                                                         Conv2dOptions{.stride = {s.patch, s.patch}}, true))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable y = proj_.forward(pass, x);
    return reshape(y, {y.extent(0), y.extent(1) * y.extent(2), y.extent(3)});
  }

 private:
  const Conv2d& proj_;
};

VisionTransformer::VisionTransformer(const VitShape& shape) : shape_(shape) {
  check(shape);
  const int64_t width = shape.block.width;
  if (shape.class_token) class_token_ = &add_parameter("cls_token", {1, 1, width}, Initial::normal(1e-6));
  positions_ = &add_parameter("pos_embed", {1, shape.tokens(), width}, Initial::normal(0.02));
  patches_ = &add_child("patch_embed", std::make_unique<Patches>(shape));
  dropout_ = &add_child("pos_drop", std::make_unique<Dropout>(shape.block.dropout));
  auto blocks = std::make_unique<Sequential>();
  for (int64_t i = 0; i < shape.depth; i++) {
    BlockShape block = shape.block;
    block.drop_path *= shape.depth > 1 ? static_cast<double>(i) / static_cast<double>(shape.depth - 1) : 1;
    blocks_.push_back(&blocks->append(std::make_unique<Block>(block)));
  }
  add_child("blocks", std::move(blocks));
  norm_ = &add_child(shape.pool == TokenPool::token ? "norm" : "fc_norm", std::make_unique<LayerNorm>(width, 1e-6));
  head_ = &add_child("head", std::make_unique<Linear>(width, shape.classes));
  // What was added to the model comes last: the rest keeps its order.
  if (shape.prompts > 0) prompt_ = &add_child("prompt", std::make_unique<Prompt>(shape));
  if (shape.prompt_frame > 0) frame_ = &add_child("frame", std::make_unique<Frame>(shape));
}

// Class token and patches, with their positions: [N, T, D].
Variable VisionTransformer::tokens(const Pass& pass, const Variable& x) const {
  const int64_t width = shape_.block.width;
  Variable y = patches_->forward(pass, frame_ ? frame_->forward(pass, x) : x);
  if (class_token_) {
    const Variable token = pass.parameter(*class_token_);
    y = concat({expand(reshape(token, {token.extent(0), 1, width}), {y.extent(0), 1, width}), y}, 1);
  }
  const Variable positions = pass.parameter(*positions_);
  y = y + reshape(positions, {positions.extent(0), shape_.tokens(), width});
  return dropout_->forward(pass, y);
}

Variable VisionTransformer::forward(const Pass& pass, const Variable& x) const {
  require(x.rank() == 4 && x.extent(1) == shape_.image_height && x.extent(2) == shape_.image_width &&
              x.extent(3) == shape_.channels && x.dtype() == dtype(),
          "this vision transformer takes {} images [N, {}, {}, {}], got {}", name_of(dtype()), shape_.image_height,
          shape_.image_width, shape_.channels, x.value.describe());
  const int64_t T = shape_.tokens(), width = shape_.block.width;
  Variable y = tokens(pass, x);
  for (size_t i = 0; i < blocks_.size(); i++) {
    const Variable prompts = prompt_ ? prompt_->of(pass, i) : Variable{};
    // Of the last block only what the classifier reads is computed. Deep prompts are replaced, so what becomes of them
    // in a block is not computed either.
    int64_t from = 0, to = shape_.deep_prompts ? T : y.extent(1) + (prompts.defined() ? shape_.prompts : 0);
    if (i + 1 == blocks_.size()) {
      from = shape_.pool == TokenPool::token ? 0 : T - shape_.patches();
      to = shape_.pool == TokenPool::token ? 1 : T;
    }
    std::vector<Variable> inputs = {y};
    if (prompts.defined()) inputs.push_back(prompts);
    y = pass.block(*blocks_[i], inputs, [block = blocks_[i], from, to](const Pass& p, const std::vector<Variable>& in) {
      return block->rows(p, in[0], in.size() > 1 ? in[1] : Variable{}, from, to);
    });
  }
  if (shape_.pool == TokenPool::average) y = mean(y, {1});
  return head_->forward(pass, reshape(norm_->forward(pass, y), {y.extent(0), width}));
}

}  // namespace fastntk
