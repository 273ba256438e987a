// Losses, one per sample (row): x [N, C] and what it is compared with give [N]. What it is compared with is a constant.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// One row of C per label, 1 at the label; labels int64 [N].
Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype = DType::float32);

/// −Σ_c w_c t_c log softmax(x)_c, t = (1 − smoothing) onehot(label) + smoothing / C; labels int64 [N]. Class weights w
/// [C] may be undefined: all 1. As in torch with reduction "none"; its "mean" also divides by the weights of the
/// labels.
Variable cross_entropy(const Variable& logits, const Tensor& labels, double smoothing = 0,
                       const Tensor& class_weights = {});
/// The same with soft labels t [N, C] ≥ 0 (distributions: rows that sum to 1).
Variable cross_entropy_soft(const Variable& logits, const Tensor& targets, const Tensor& class_weights = {});
/// −Σ_c w_c t_c log σ(x_c) + (1 − t_c) log(1 − σ(x_c)), targets t [N, C] in [0, 1], σ the sigmoid. Weights w [C] of the
/// positive class (torch's pos_weight) may be undefined: all 1.
Variable binary_cross_entropy(const Variable& logits, const Tensor& targets, const Tensor& positive_weights = {});
/// Σ_c t_c (log t_c − x_c): the Kullback-Leibler divergence of targets t from exp(x), x log-probabilities (torch's
/// kl_div, which has them in this order). With `log_targets` the targets are given as log t. A term of t_c = 0 is 0.
Variable kl_divergence(const Variable& log_probabilities, const Tensor& targets, bool log_targets = false);
/// ½ Σ_c (x_c − t_c)² for targets t [N, C].
Variable squared_error(const Variable& x, const Tensor& targets);

}  // namespace fastntk
