// Scaled dot-product attention (Vaswani et al. 2017).
#pragma once
#include "engine/op.h"

namespace fastntk {

/// y = softmax(scale · q kᵀ) v, the softmax over the keys. q [N…, T, d], k [N…, S, d], v [N…, S, e] → [N…, T, e]; the
/// leading axes N… (samples, heads) are the same for all and at least one. The map keeps q, k and v, and makes the
/// probabilities [T, S] again, once for a whole stack of cotangents.
Variable attention(const Variable& q, const Variable& k, const Variable& v, double scale);

/// The same of all heads, with query, key and value as a projection leaves them, side by side: qkv [N…, T, 3 · heads ·
/// d], in it all queries, then keys, then values, head by head → [N…, T, heads · d]. Its cotangent is made in one
/// piece.
Variable self_attention(const Variable& qkv, int64_t heads, double scale);

}  // namespace fastntk
