#include <fmt/core.h>

#include "engine/functional.h"
#include "engine/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "engine/random.h"

using namespace fastntk;

int main() {
  const auto normal = [](uint64_t seed, const Shape& shape) {
    return Random(seed).normal_tensor(shape, DType::float64);
  };
  const Tensor x = normal(1, {6, 4}), w = normal(2, {4, 3}), v = normal(3, {4, 3});
  const Tensor labels = Tensor::from<int64_t>({6}, {0, 1, 2, 2, 1, 0});

  const auto f = [&](const Variable& weight) { return matmul(x, weight); };  // logits [6, 3]
  const auto loss = [&](const Variable& logits) { return sum(cross_entropy(logits, labels)); };
  const auto objective = [&](const Variable& weight) { return loss(f(weight)); };

  const Jvp d = jvp(f, w, v);                          // f(w) and J v, both [6, 3]
  const Pullback pullback = vjp(f, w);                 // f(w), and Jᵀ u for any number of u
  const Tensor g = pullback(normal(4, {2, 6, 3}))[0];  // two cotangents at once: [2, 4, 3]
  const Tensor j = jacobian(f, w);                     // [6, 3, 4, 3]
  const Tensor hv = hvp(objective, w, v);              // ∇² v, [4, 3]
  const Tensor gv = ggn_vp(f, loss, w, v);             // Jᵀ H_loss J v: here the same, as f is linear in w
  fmt::print("J v {}, Jᵀ u {}, J {}\n", d.tangent.shape().str(), g.shape().str(), j.shape().str());
  fmt::print("|∇² v − Jᵀ H J v|² = {:.1e}\n", sum(square(hv - gv)).value.item());

  // f(θ, x) with a value for each sample; parameters arrive with a leading axis.
  const ParametricFunction network = [](const std::vector<Variable>& theta, const Variable& input) {
    const Variable y = linear(reshape(input, {input.extent(0), 1, 4}), theta[0]);
    return relu(reshape(y, {y.extent(0), 3}) + theta[1]);
  };
  const Tensors theta = {normal(5, {3, 4}), normal(6, {3})};
  fmt::print("Θ {}\n", ntk(network, theta, x, normal(7, {2, 4})).shape().str());

  const GradcheckReport report = gradcheck(objective, w);
  fmt::print("{}", report.str());
  return report.ok() ? 0 : 1;
}
