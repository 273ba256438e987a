// What the sources of Prepared share.
#pragma once
#include <string>
#include <vector>

#include "training/loss.h"
#include "unlearn/rows.h"

namespace fastntk {

/// Hashes one a line, each line with its end.
std::string joined(const std::vector<std::string>& hashes);
/// f(θ*) + J v, [n, C].
Tensor linear_logits(const LinearisedSet& set, const Tensor& v);
/// −∂ℓ/∂f at logits [n, C].
Tensor residuals_at(const Loss& loss, const Tensor& logits, const std::vector<int64_t>& labels);

}  // namespace fastntk
