// Scaled dot-product attention on the CPU, one head of one sample at a time; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void attention(const Backend::Attention& arguments);
void attention_transposed(const Backend::AttentionTransposed& arguments);

}  // namespace fastntk::cpu
