// Losses: of one sample, as a function of its logits. What training needs (a Variable) and what the linearised problem
// needs (value, gradient and a factor of the Hessian in float64) stand side by side.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/variable.h"

namespace fastntk {

struct Loss {
  std::string name;         ///< as on the command line
  std::string description;  ///< one line
  /// Per-sample losses [N] of logits [N, C] and labels int64 [N].
  std::function<Variable(const Variable& logits, const Tensor& labels, double label_smoothing)> evaluate;
  /// The loss of one sample with `classes` logits f.
  std::function<double(const double* f, int64_t classes, int64_t label)> value;
  /// ∂ℓ/∂f [C].
  std::function<void(const double* f, int64_t classes, int64_t label, double* gradient)> gradient;
  /// S [C, C], row-major, with S Sᵀ = ∂²ℓ/∂f². Empty: the Hessian is the identity.
  std::function<void(const double* f, int64_t classes, int64_t label, double* factor)> curvature_factor;
};

/// The loss with the samples of class c counted w_c times; named NAME:w0,w1,… as find_loss() knows it. All weights are
/// positive.
Loss class_weighted(const Loss& loss, const std::vector<double>& weights);

/// Enters a loss into the table, for user code outside the repository; the reference stays valid.
const Loss& register_loss(Loss loss);
/// "ce" (cross-entropy), "mse" (½ squared error to one-hot targets), "bce" (binary cross-entropy of every class against
/// the others), and what was registered; each also with class weights, "ce:1,2,1" for three classes. UsageError lists
/// them.
const Loss& find_loss(const std::string& name);
std::vector<std::string> loss_names();

}  // namespace fastntk
