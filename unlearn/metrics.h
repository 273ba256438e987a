// What is measured of a model: functions of its logits on a set, and of its parameters.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

/// Fraction of samples whose largest logit is their label's (of equal logits the first counts). logits [n, C], labels
/// int64 [n]; NaN for an empty set.
double accuracy(const Tensor& logits, const Tensor& labels);
/// Mean of −log softmax(logits)[label], nats; NaN for an empty set.
double mean_cross_entropy(const Tensor& logits, const Tensor& labels);
/// Mean of ½ Σ_c (logits − onehot)²; NaN for an empty set.
double mean_squared_error(const Tensor& logits, const Tensor& labels);
/// Mean Jensen–Shannon divergence between the softmax of two models on the same samples, nats: ½ KL(p‖m) + ½ KL(q‖m),
/// m = (p + q) / 2; between 0 and log 2.
double jensen_shannon(const Tensor& logits_p, const Tensor& logits_q);
/// Mean over samples of Σ_c |p_c − q_c| between the softmax of two models; between 0 and 2.
double activation_distance(const Tensor& logits_p, const Tensor& logits_q);
/// ‖θ − θ_oracle‖ / ‖θ_oracle − θ_original‖; NaN when the oracle is the original model.
double weight_distance(const std::vector<double>& theta, const std::vector<double>& theta_oracle,
                       const std::vector<double>& theta_original);
/// Row-wise softmax in float64, [n, C].
std::vector<double> softmax_rows(const Tensor& logits);
double norm(const std::vector<double>& v);
double norm(const Tensor& v);
/// a + factor · b for float64 tensors of one shape.
Tensor combine(const Tensor& a, double factor, const Tensor& b);
double distance(const std::vector<double>& a, const std::vector<double>& b);
/// ⟨a, b⟩ / (‖a‖ ‖b‖), 0 when either is zero.
double cosine(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace fastntk
