#include "training/gradient.h"

#include <cmath>

#include "engine/backend.h"
#include "engine/device.h"
#include "engine/ops/reduce.h"
#include "engine/progress.h"

namespace fastntk {
namespace {

constexpr int64_t gradient_tile = 8;  // samples; part of what the bits depend on
constexpr int64_t predict_tile = 8;
constexpr int64_t wave = 32;          // tiles whose gradients are in memory at once
constexpr int64_t device_tile = 256;  // samples of a tile where a device does it all at once

int64_t tile_on(Device device, int64_t tile) { return device == Device::cpu ? tile : device_tile; }

struct TileGradient {
  double loss = 0;
  std::vector<Variable> leaves;
};

TileGradient tile_gradient(const Module& model, const Subset& subset, Mode mode, const Tensor& inputs,
                           const Tensor& labels, const Loss& loss, double smoothing,
                           const std::optional<Random>& random, int64_t first_sample, bool recompute, bool trace) {
  Tape tape(Tape::Options{.trace_non_finite = trace});
  Pass pass = Pass::shared(model, subset, tape, mode);
  pass.set_recompute(recompute);
  if (random) pass.draw_from(model, *random, first_sample);
  const Device device = model.device();
  const Variable total = sum(loss.evaluate(model.forward(pass, inputs.to(device)), labels.to(device), smoothing));
  TileGradient out;
  out.loss = total.value.item();
  if (total.active()) out.leaves = tape.vjp(total, Tensor::scalar(1, total.dtype(), device), pass.leaves());
  return out;
}

}  // namespace

BatchGradient batch_gradient(const Module& model, const Subset& subset, Mode mode, const Tensor& inputs,
                             const Tensor& labels, const Loss& loss, double smoothing,
                             const std::optional<Random>& random, bool recompute, NonFinite non_finite) {
  const bool whole = mode == Mode::train && !model.separates_samples();
  const Device device = model.device();
  const int64_t n = inputs.extent(0), tile = whole ? n : tile_on(device, gradient_tile), tiles = (n + tile - 1) / tile;
  const auto part = [&](const Tensor& t, int64_t i) { return t.slice(0, i * tile, std::min(n, (i + 1) * tile)); };
  BatchGradient out;
  std::vector<Tensor> sums;
  for (const Subset::Entry& e : subset.entries) sums.push_back(Tensor::zeros(e.shape, DType::float64, device));
  for (int64_t first = 0; first < tiles; first += wave) {
    std::vector<TileGradient> results(static_cast<size_t>(std::min(wave, tiles - first)));
    for_parts(device, static_cast<int64_t>(results.size()), [&](int64_t i) {
      results[static_cast<size_t>(i)] =
          tile_gradient(model, subset, mode, part(inputs, first + i), part(labels, first + i), loss, smoothing, random,
                        (first + i) * tile, recompute, false);
    });
    for (size_t i = 0; i < results.size(); i++) {
      out.loss += results[i].loss;
      if (!std::isfinite(results[i].loss) && non_finite == NonFinite::refused) {
        // Once more with a look at every value: the error names the op.
        const int64_t at = first + static_cast<int64_t>(i);
        tile_gradient(model, subset, mode, part(inputs, at), part(labels, at), loss, smoothing, random, at * tile,
                      recompute, true);
        fail("the loss of a batch is {}, from values that were not finite before the first tuned parameter",
             results[i].loss);
      }
      for (size_t k = 0; k < results[i].leaves.size(); k++) {
        if (!results[i].leaves[k].defined()) continue;
        const Tensor g = results[i].leaves[k].value.reshape(sums[k].shape()).to(DType::float64);
        backend(device).map(BinaryKind::add, sums[k], g, sums[k]);
      }
    }
  }
  for (const Tensor& sum : sums) out.gradient.push_back(sum.to(inputs.dtype()));
  return out;
}

Tensor stack_rows(const std::vector<Tensor>& parts) {
  require(!parts.empty(), "there are no rows to stack");
  Shape shape = parts[0].shape();
  for (size_t i = 1; i < parts.size(); i++) shape[0] += parts[i].extent(0);
  Tensor out(shape, parts[0].dtype(), parts[0].device());
  int64_t at = 0;
  for (const Tensor& part : parts) {
    out.slice(0, at, at + part.extent(0)).copy_from(part);
    at += part.extent(0);
  }
  return out;
}

Tensor predict(const Module& model, const Tensor& inputs) {
  const Device device = model.device();
  const int64_t n = inputs.extent(0), tile = tile_on(device, predict_tile), tiles = (n + tile - 1) / tile;
  require(n > 0, "a prediction needs at least one sample");
  std::vector<Tensor> parts(static_cast<size_t>(tiles));
  for_parts(device, tiles, [&](int64_t i) {
    check_interrupt();
    const Tensor part = inputs.slice(0, i * tile, std::min(n, (i + 1) * tile)).to(device);
    parts[static_cast<size_t>(i)] = model.forward(Pass(Mode::eval), part).value.to(inputs.device());
  });
  return stack_rows(parts);
}

Objective objective(const Module& model, const Subset& subset, const Samples& samples, const Loss& loss, double rho,
                    const Tensor& theta0) {
  const BatchGradient g =
      batch_gradient(model, subset, Mode::eval, samples.inputs, samples.labels, loss, 0, {}, false, NonFinite::kept);
  const std::vector<double> theta = gather(model, subset).to_vector<double>(), start = theta0.to_vector<double>();
  Objective out{.loss = g.loss};
  double squared = 0;
  for (size_t k = 0; k < subset.entries.size(); k++) {
    const auto gradient = g.gradient[k].to(DType::float64).to_vector<double>();
    for (size_t e = 0; e < gradient.size(); e++) {
      const size_t p = static_cast<size_t>(subset.entries[k].offset) + e;
      const double d = theta[p] - start[p], total = gradient[e] + rho * d;
      out.penalty += 0.5 * rho * d * d;
      squared += total * total;
    }
  }
  out.gradient_norm = std::sqrt(squared);
  return out;
}

}  // namespace fastntk
