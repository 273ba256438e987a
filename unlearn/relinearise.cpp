#include "unlearn/relinearise.h"

#include <cmath>

#include "training/gradient.h"
#include "unlearn/metrics.h"

namespace fastntk {
namespace {

constexpr int damping_limit = 20;

}  // namespace

std::vector<RelineariseStep> relinearise(Module& model, const Subset& subset, const Samples& retain, const Loss& loss,
                                         double ridge, const Tensor& theta0, int k, const JacobianOptions& options) {
  require_usage(k >= 1, "relinearise needs at least one step, got {}", k);
  std::vector<RelineariseStep> steps;
  for (int i = 0; i < k; i++) {
    const Objective before = objective(model, subset, retain, loss, ridge, theta0);
    require(std::isfinite(before.value()), "relinearise {}: the objective is {} before the step", i + 1,
            before.value());
    Jacobian j = jacobian(model, subset, retain.inputs.to(model.device()), options);  // rows stay with the network
    const LinearisedSet set{std::move(j.rows), j.logits.to(Device::cpu), retain.labels};
    const Positions all = all_positions(set.size());
    const int64_t C = set.classes(), P = set.parameters();
    const Tensor theta = gather(model, subset), f = set.logits.to(DType::float64).contiguous();
    Tensor g({set.size(), C}, DType::float64);
    for (int64_t n = 0; n < set.size(); n++)
      loss.gradient(f.data<double>() + n * C, C, retain.labels.data<int64_t>()[n], g.mutable_data<double>() + n * C);
    Tensor gradient = transposed_rows_times(set, all, g);
    for (int64_t p = 0; p < P; p++)
      gradient.mutable_data<double>()[p] += ridge * (theta.data<double>()[p] - theta0.data<double>()[p]);
    const SymmetricMatrix gram = weighted_gram(set, all, loss, f);

    RelineariseStep step{.objective_before = before.value(), .gradient_norm_before = before.gradient_norm};
    double mu = 0;
    for (; step.rejected < damping_limit; step.rejected++, mu = mu == 0 ? ridge : 4 * mu) {
      RidgeSystem system(gram.clone(), ridge + mu, fmt::format("relinearise {}", i + 1));
      const Tensor d = system.solve(gradient);
      Tensor next = theta.clone();
      for (int64_t p = 0; p < P; p++) next.mutable_data<double>()[p] -= d.data<double>()[p];
      scatter(model, subset, next);
      const double after = objective(model, subset, retain, loss, ridge, theta0).value();
      if (std::isfinite(after) && after < before.value()) {
        step.accepted = true, step.damping = mu, step.objective_after = after, step.solve = system.report();
        break;
      }
    }
    if (!step.accepted) {
      scatter(model, subset, theta);
      step.objective_after = before.value();
    }
    steps.push_back(step);
    if (!step.accepted) break;
  }
  return steps;
}

double linearisation_error(const DirectionalDerivative& at_star, const Tensor& logits) {
  const auto now = logits.to(DType::float64).to_vector<double>(),
             star = at_star.logits.to(DType::float64).to_vector<double>();
  const auto predicted = at_star.derivative.to(DType::float64).to_vector<double>();
  double error = 0, size = 0;
  for (size_t i = 0; i < now.size(); i++) {
    const double e = now[i] - star[i] - predicted[i];
    error += e * e, size += predicted[i] * predicted[i];
  }
  return error == 0 ? 0 : std::sqrt(error / size);
}

}  // namespace fastntk
