#include "models/layers.h"

#include <cmath>

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/normalisation.h"
#include "engine/ops/reduce.h"

namespace fastntk {

Conv2d::Conv2d(int64_t in, int64_t out, int64_t kernel, const Conv2dOptions& options, bool bias)
    : options_(options),
      weight_(add_parameter("weight", {out, in / options.groups, kernel, kernel},
                            Initial::normal(std::sqrt(2.0 / static_cast<double>(out * kernel * kernel))))) {
  if (bias) bias_ = &add_parameter("bias", {out}, Initial::constant(0));
}

Variable Conv2d::forward(const Pass& pass, const Variable& x) const {
  Variable y = conv2d(x, pass.parameter(weight_), options_);
  if (!bias_) return y;
  const Variable bias = pass.parameter(*bias_);
  return y + reshape(bias, {bias.extent(0), 1, 1, bias.extent(1)});
}

BatchNorm2d::BatchNorm2d(int64_t channels, double epsilon, double momentum)
    : epsilon_(epsilon),
      momentum_(momentum),
      weight_(add_parameter("weight", {channels}, Initial::constant(1))),
      bias_(add_parameter("bias", {channels}, Initial::constant(0))),
      mean_(add_buffer("running_mean", Tensor::zeros({channels}))),
      variance_(add_buffer("running_var", Tensor::full({channels}, 1))),
      batches_(add_buffer("num_batches_tracked", Tensor::zeros({}, DType::int64))) {}

Variable BatchNorm2d::forward(const Pass& pass, const Variable& x, const Variable& residual, bool rectify) const {
  const Variable gamma = pass.parameter(weight_), beta = pass.parameter(bias_);
  if (pass.mode() == Mode::eval)
    return batch_norm_eval(x, gamma, beta, mean_.value, variance_.value, epsilon_, residual, rectify);
  // A block that runs again has been counted: then copies of the running statistics take the update.
  const bool first = pass.first_run();
  const Tensor mean = first ? mean_.value : mean_.value.clone(),
               variance = first ? variance_.value : variance_.value.clone();
  const Variable y = add_defined(batch_norm_train(x, gamma, beta, mean, variance, momentum_, epsilon_), residual);
  Tensor batches = batches_.value;  // another handle of the same element, which is on the host
  if (first) *batches.mutable_data<int64_t>() += 1;
  return rectify ? relu(y) : y;
}

Linear::Linear(int64_t in, int64_t out)
    : weight_(add_parameter("weight", {out, in}, Initial::uniform(1 / std::sqrt(static_cast<double>(in))))),
      bias_(add_parameter("bias", {out}, Initial::uniform(1 / std::sqrt(static_cast<double>(in))))) {}

Variable Linear::forward(const Pass& pass, const Variable& x) const {
  const Variable weight = pass.parameter(weight_), bias = pass.parameter(bias_);
  pass.saw_linear(weight_, x);
  if (x.rank() == 2) {
    const Variable y = linear(reshape(x, {x.extent(0), 1, x.extent(1)}), weight);
    return reshape(y, {y.extent(0), y.extent(2)}) + bias;
  }
  return linear(x, weight) + reshape(bias, {bias.extent(0), 1, bias.extent(1)});
}

Variable Relu::forward(const Pass&, const Variable& x) const { return relu(x); }

Variable GlobalAveragePool::forward(const Pass&, const Variable& x) const {
  return reshape(global_average_pool(x), {x.extent(0), x.extent(3)});
}

Variable flatten_image(const Variable& x) {
  return reshape(permute(x, {0, 3, 1, 2}), {x.extent(0), x.extent(1) * x.extent(2) * x.extent(3)});
}

Variable Sequential::forward(const Pass& pass, const Variable& x) const {
  Variable y = x;
  for (const auto& [name, child] : children_) y = child->forward(pass, y);
  return y;
}

}  // namespace fastntk
