#include "training/curvature.h"

#include <algorithm>

#include "engine/device.h"
#include "engine/functional.h"
#include "engine/ops/reduce.h"
#include "models/pass.h"

namespace fastntk {
namespace {

constexpr int64_t tile = 8;   // samples; part of what the bits depend on
constexpr int64_t wave = 32;  // tiles whose products are in memory at once

// θ as the leaves of a pass, [1, …] each, and a direction [K…, P] in the same form.
struct Parameters {
  Tensors theta, v;
  Parameters(const Module& model, const Subset& subset, const Tensor& direction) {
    const Tensor typed = direction.to(model.dtype()).to(model.device());
    const Shape lead = direction.shape().leading(direction.rank() - 1);
    const auto parameters = parameters_of(model, subset);
    for (size_t k = 0; k < parameters.size(); k++) {
      const auto& e = subset.entries[k];
      theta.push_back(parameters[k]->value.unsqueeze(0));
      v.push_back(typed.slice(-1, e.offset, e.offset + e.shape.elements()).reshape(lead + theta.back().shape()));
    }
  }
};

// Σ over tiles of product(f, loss of the tile, θ, v).
template <class Product>
Tensor sum_over_tiles(const Module& model, const Subset& subset, const Samples& samples, const Loss& loss,
                      const Tensor& v, double smoothing, const char* what, Product&& product) {
  require(subset.size() > 0, "{} in no parameters", what);
  require((v.rank() == 1 || v.rank() == 2) && v.extent(-1) == subset.size(),
          "{} needs a direction [{}] or a stack of them, got {}", what, subset.size(), v.shape().str());
  require(samples.size() > 0 && samples.labels.defined(), "{} needs samples with labels", what);
  require(samples.inputs.dtype() == model.dtype(), "the inputs are {}, the model is {}",
          name_of(samples.inputs.dtype()), name_of(model.dtype()));
  const Parameters at(model, subset, v);
  const int64_t n = samples.size(), tiles = (n + tile - 1) / tile, P = subset.size(),
                K = v.rank() == 2 ? v.extent(0) : 1;
  Tensor total = Tensor::zeros({K, P}, DType::float64);
  double* const sum_out = total.mutable_data<double>();
  for (int64_t first = 0; first < tiles; first += wave) {
    std::vector<Tensors> parts(static_cast<size_t>(std::min(wave, tiles - first)));
    for_parts(model.device(), static_cast<int64_t>(parts.size()), [&](int64_t i) {
      const int64_t from = (first + i) * tile, to = std::min(n, from + tile);
      const Tensor inputs = samples.inputs.slice(0, from, to).to(model.device()),
                   labels = samples.labels.slice(0, from, to).to(model.device());
      const Function f = [&](const std::vector<Variable>& theta) {
        return model.forward(Pass(model, subset, theta), inputs);
      };
      const Function tile_loss = [&](const Variable& logits) { return sum(loss.evaluate(logits, labels, smoothing)); };
      parts[static_cast<size_t>(i)] = product(f, tile_loss, at.theta, at.v);
    });
    for (const Tensors& part : parts)
      for (size_t k = 0; k < part.size(); k++) {
        const int64_t count = subset.entries[k].shape.elements();
        const std::vector<double> values = part[k].to(DType::float64).to_vector<double>();
        for (int64_t row = 0; row < K; row++)
          for (int64_t e = 0; e < count; e++)
            sum_out[row * P + subset.entries[k].offset + e] += values[static_cast<size_t>(row * count + e)];
      }
  }
  return total.reshape(v.shape());
}

}  // namespace

Tensor hvp(const Module& model, const Subset& subset, const Samples& samples, const Loss& loss, const Tensor& v,
           double label_smoothing) {
  return sum_over_tiles(model, subset, samples, loss, v, label_smoothing, "a Hessian-vector product",
                        [](const Function& f, const Function& of_logits, const Tensors& theta, const Tensors& tangent) {
                          return hvp([&](const std::vector<Variable>& x) { return of_logits({f(x)}); }, theta, tangent);
                        });
}

Tensor ggn_vp(const Module& model, const Subset& subset, const Samples& samples, const Loss& loss, const Tensor& v,
              double label_smoothing) {
  return sum_over_tiles(model, subset, samples, loss, v, label_smoothing, "a Gauss-Newton product",
                        [](const Function& f, const Function& of_logits, const Tensors& theta, const Tensors& tangent) {
                          return ggn_vp(f, of_logits, theta, tangent);
                        });
}

}  // namespace fastntk
