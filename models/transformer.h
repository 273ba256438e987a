// The parts of a vision transformer: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021. Parameter names
// are those of timm's vision_transformer. Tokens are [N, T, D].
#pragma once
#include "models/norms.h"
#include "models/regularisation.h"

namespace fastntk {

/// Low-rank adaptation of a linear map, W x + (alpha / rank) B A x: Hu et al., "LoRA", ICLR 2022. Rank 0: none.
struct LowRank {
  int64_t rank = 0;
  double alpha = 0;
};

/// Of linear maps, as in timm.
inline const Initial initial_weight = Initial::normal(0.02);

/// y = x wᵀ + b for tokens x [N, T, in]; weight [out, in], initially as said, bias [out] zero; with low-rank adaptation
/// also lora_A [rank, in], uniform within 1/√in, and lora_B [out, rank], zero, so that the map starts as it is without.
class Projection final : public Module {
 public:
  Projection(int64_t in, int64_t out, bool bias = true, const LowRank& lora = {},
             const Initial& weight = initial_weight);
  Variable forward(const Pass& pass, const Variable& x) const override { return features(pass, x, 0, out_); }
  /// The features [from, to) of the output alone.
  Variable features(const Pass& pass, const Variable& x, int64_t from, int64_t to) const;

 private:
  int64_t out_;
  Parameter& weight_;
  Parameter* bias_ = nullptr;
  Parameter *down_ = nullptr, *up_ = nullptr;
  double lora_scale_ = 0;
};

/// Everything about a block; all blocks of a transformer but for `drop_path` are alike.
struct BlockShape {
  int64_t width = 192, heads = 3, hidden = 768;  ///< hidden: of the MLP
  bool qkv_bias = true;
  double layer_scale = 0;  ///< the initial factors of layer scale (Touvron et al. 2021); 0: no layer scale
  double dropout = 0;      ///< of the output of the attention and of both layers of the MLP, in train mode
  double drop_path = 0;    ///< probability that a sample leaves out a branch, in train mode
  LowRank lora;            ///< of attn.qkv and attn.proj
  int64_t adapter = 0;     ///< width of the adapter after the MLP; 0: none
};

/// A pre-norm block: z = x + proj(attention(norm1(x))), then z + mlp(norm2(z)); mlp = fc2(gelu(fc1(·))). With an
/// adapter (Houlsby et al. 2019, placed as by Pfeiffer et al. 2021) the branch of the MLP is h + up(gelu(down(h))) of
/// h = mlp(norm2(z)), `up` zero at the start.
class Block final : public Module {
 public:
  explicit Block(const BlockShape& shape);
  Variable forward(const Pass& pass, const Variable& x) const override { return rows(pass, x, {}, 0, x.extent(1)); }
  /// The rows [from, to) of the output for tokens x [N, T, D] followed by prompts [1 or N, p, D] (undefined: none).
  /// Rows that are not read have keys and values only. Tokens that depend on no tuned parameter stay constants until
  /// the attention, prompts or not.
  Variable rows(const Pass& pass, const Variable& x, const Variable& prompts, int64_t from, int64_t to) const;

 private:
  class Attention;
  class Mlp;
  const LayerNorm* norm1_;
  const Attention* attention_;
  const LayerScale* scale1_ = nullptr;
  const LayerNorm* norm2_;
  const Mlp* mlp_;
  const Mlp* adapter_ = nullptr;
  const LayerScale* scale2_ = nullptr;
  const DropPath* drop_path1_ = nullptr;
  const DropPath* drop_path2_ = nullptr;
};

}  // namespace fastntk
