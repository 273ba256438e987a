// Layers that keep a deep network from overfitting or from diverging early: random in train mode, or a scale.
#pragma once
#include "models/pass.h"

namespace fastntk {

/// engine/ops/dropout.h in train mode, from the numbers of the pass (Pass::draw_from); the identity in eval mode.
class Dropout final : public Module {
 public:
  explicit Dropout(double rate);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  double rate_;
};

/// Stochastic depth: drops the branch x of a residual block, for whole samples, in train mode.
class DropPath final : public Module {
 public:
  explicit DropPath(double rate);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  double rate_;
};

/// y = γ ⊙ x over the last axis; gamma [C], the same small number everywhere at first. Touvron et al., "Going deeper
/// with image transformers", ICCV 2021.
class LayerScale final : public Module {
 public:
  explicit LayerScale(int64_t channels, double initial = 1e-5);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  Parameter& gamma_;
};

}  // namespace fastntk
