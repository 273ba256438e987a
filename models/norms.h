// The norms within a sample, as modules (engine/ops/layer_norm.h has their mathematics). Images are [N, H, W, C].
#pragma once
#include "models/pass.h"

namespace fastntk {

/// Layer norm over the last axis: weight (γ) [width] and bias (β) [width], as torch.nn.LayerNorm(width).
class LayerNorm final : public Module {
 public:
  explicit LayerNorm(int64_t width, double epsilon = 1e-5);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  double epsilon_;
  Parameter &weight_, &bias_;
};

/// RMS norm over the last axis: weight (γ) [width], as torch.nn.RMSNorm(width, epsilon).
class RmsNorm final : public Module {
 public:
  explicit RmsNorm(int64_t width, double epsilon = 1e-6);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  double epsilon_;
  Parameter& weight_;
};

/// Group norm of the last axis: weight (γ) and bias (β) [channels], as torch.nn.GroupNorm(groups, channels).
class GroupNorm final : public Module {
 public:
  GroupNorm(int64_t groups, int64_t channels, double epsilon = 1e-5);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  int64_t groups_;
  double epsilon_;
  Parameter &weight_, &bias_;
};

/// Instance norm by channel, in both modes with the statistics of the sample: as torch.nn.InstanceNorm2d(channels,
/// affine) without running statistics; weight (γ) and bias (β) [channels] if affine.
class InstanceNorm2d final : public Module {
 public:
  explicit InstanceNorm2d(int64_t channels, bool affine = false, double epsilon = 1e-5);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  int64_t channels_;
  double epsilon_;
  Parameter *weight_ = nullptr, *bias_ = nullptr;
};

}  // namespace fastntk
