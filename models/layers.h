// The layers that models are made of. Images are [N, H, W, C] (channels last).
#pragma once
#include "engine/ops/convolution.h"
#include "engine/ops/pool.h"
#include "models/pass.h"

namespace fastntk {

/// Two-dimensional convolution without or with bias [out]; weight [out, in / groups, kernel, kernel]. Initially normal
/// with variance 2 / (out · kernel²) (He et al. 2015, fan-out), the bias zero.
class Conv2d final : public Module {
 public:
  Conv2d(int64_t in, int64_t out, int64_t kernel, const Conv2dOptions& options = {}, bool bias = false);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  Conv2dOptions options_;
  Parameter& weight_;
  Parameter* bias_ = nullptr;
};

/// Batch normalisation of the last axis: weight (γ) and bias (β) [C]; running_mean, running_var [C] and
/// num_batches_tracked (int64). Eval mode uses the running statistics, train mode those of the batch, and then updates
/// the running ones in place with torch's momentum 0.1.
class BatchNorm2d final : public Module {
 public:
  explicit BatchNorm2d(int64_t channels, double epsilon = 1e-5, double momentum = 0.1);
  Variable forward(const Pass& pass, const Variable& x) const override { return forward(pass, x, {}, false); }
  /// What follows in a residual network, in one pass over memory in eval mode: plus `residual` (undefined = none), then
  /// max(0, ·) if `relu`.
  Variable forward(const Pass& pass, const Variable& x, const Variable& residual, bool relu) const;

 private:
  double epsilon_, momentum_;
  Parameter &weight_, &bias_;
  ModuleBuffer &mean_, &variance_, &batches_;
};

/// y = x wᵀ + b for x [N, in] or [N, T, in]; weight [out, in], bias [out]. Both initially uniform within 1/√in, as in
/// torch.
class Linear final : public Module {
 public:
  Linear(int64_t in, int64_t out);
  Variable forward(const Pass& pass, const Variable& x) const override;

 private:
  Parameter &weight_, &bias_;
};

class Relu final : public Module {
 public:
  Variable forward(const Pass& pass, const Variable& x) const override;
};

class MaxPool2d final : public Module {
 public:
  explicit MaxPool2d(const Pool2dOptions& options) : options_(options) {}
  Variable forward(const Pass&, const Variable& x) const override { return max_pool2d(x, options_); }

 private:
  Pool2dOptions options_;
};

/// [N, H, W, C] → [N, C], the mean over the image.
class GlobalAveragePool final : public Module {
 public:
  Variable forward(const Pass& pass, const Variable& x) const override;
};

/// [N, H, W, C] → [N, C·H·W] in the order of torch, which keeps channels first.
Variable flatten_image(const Variable& x);

/// Children named "0", "1", … applied one after the other.
class Sequential final : public Module {
 public:
  template <class M>
  M& append(std::unique_ptr<M> module) {
    return add_child(std::to_string(children_.size()), std::move(module));
  }
  Variable forward(const Pass& pass, const Variable& x) const override;
};

}  // namespace fastntk
