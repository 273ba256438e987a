// Softmax, and the losses of classification.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// Over the last axis.
Variable softmax(const Variable& x);
Variable log_softmax(const Variable& x);
/// log Σ exp over the last axis, which stays with extent 1.
Variable logsumexp(const Variable& x);
/// Maximum over one axis, which stays with extent 1. Of equal values the first has the derivative.
Variable max(const Variable& x, int axis);

/// −Σ_c t_c log softmax(x)_c per sample, t = (1 − smoothing) onehot(label) + smoothing / C. logits [N, C], labels int64
/// [N] → [N].
Variable cross_entropy(const Variable& logits, const Tensor& labels, double smoothing = 0);
/// ½ Σ_c (x_c − t_c)² per sample. x, targets [N, C] → [N].
Variable squared_error(const Variable& x, const Tensor& targets);
/// One row of C per label, 1 at the label; labels int64 [N].
Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype = DType::float32);

}  // namespace fastntk
