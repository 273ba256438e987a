#include "models/norms.h"

#include "engine/ops/layer_norm.h"

namespace fastntk {

LayerNorm::LayerNorm(int64_t width, double epsilon)
    : epsilon_(epsilon),
      weight_(add_parameter("weight", {width}, Initial::constant(1))),
      bias_(add_parameter("bias", {width}, Initial::constant(0))) {}

Variable LayerNorm::forward(const Pass& pass, const Variable& x) const {
  return layer_norm(x, pass.parameter(weight_), pass.parameter(bias_), epsilon_);
}

RmsNorm::RmsNorm(int64_t width, double epsilon)
    : epsilon_(epsilon), weight_(add_parameter("weight", {width}, Initial::constant(1))) {}

Variable RmsNorm::forward(const Pass& pass, const Variable& x) const {
  return rms_norm(x, pass.parameter(weight_), epsilon_);
}

GroupNorm::GroupNorm(int64_t groups, int64_t channels, double epsilon)
    : groups_(groups),
      epsilon_(epsilon),
      weight_(add_parameter("weight", {channels}, Initial::constant(1))),
      bias_(add_parameter("bias", {channels}, Initial::constant(0))) {
  require(groups > 0 && channels % groups == 0, "GroupNorm: {} channels in {} equal groups", channels, groups);
}

Variable GroupNorm::forward(const Pass& pass, const Variable& x) const {
  return group_norm(x, groups_, pass.parameter(weight_), pass.parameter(bias_), epsilon_);
}

InstanceNorm2d::InstanceNorm2d(int64_t channels, bool affine, double epsilon) : channels_(channels), epsilon_(epsilon) {
  if (!affine) return;
  weight_ = &add_parameter("weight", {channels}, Initial::constant(1));
  bias_ = &add_parameter("bias", {channels}, Initial::constant(0));
}

Variable InstanceNorm2d::forward(const Pass& pass, const Variable& x) const {
  require(x.extent(-1) == channels_, "InstanceNorm2d of {} channels, got x {}", channels_, x.shape().str());
  return weight_ ? instance_norm(x, pass.parameter(*weight_), pass.parameter(*bias_), epsilon_)
                 : instance_norm(x, {}, {}, epsilon_);
}

}  // namespace fastntk
