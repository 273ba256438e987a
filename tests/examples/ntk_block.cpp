#include <fmt/core.h>

#include "engine/gram.h"
#include "engine/random.h"
#include "models/registry.h"
#include "unlearn/jacobian.h"

int main() {
  using namespace fastntk;
  const Model model = make_model({.architecture = "resnet20", .classes = 10, .channels = 1}, /*seed=*/1);
  const Subset subset = choose(*model, "bn");  // θ: weight and bias of every batch norm, P numbers

  const Tensor a = Random(2).normal_tensor({3, 28, 28, 1});  // three images, channels last
  const Tensor b = Random(3).normal_tensor({2, 28, 28, 1});  // two others
  const Tensor rows_a = jacobian(*model, subset, a).rows;    // ∂f/∂θ, [3, 10, P]
  const Tensor rows_b = jacobian(*model, subset, b).rows;    // [2, 10, P]

  const Tensor block = dual_gram(rows_a, rows_b);  // Θ_ab = J_a J_bᵀ in float64, rows (sample, class), class fastest
  fmt::print("P = {}, Θ_ab {}\n", subset.size(), block.shape().str());
}
