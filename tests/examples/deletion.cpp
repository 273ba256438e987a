#include <fmt/core.h>

#include "engine/random.h"
#include "models/registry.h"
#include "unlearn/prepared.h"

int main(int argc, char** argv) {
  using namespace fastntk;
  const std::string folder = argc > 1 ? argv[1] : "state";
  const Model model = make_model({.architecture = "resnet20", .classes = 2, .channels = 1}, /*seed=*/1);
  const Tensor theta0 = gather(*model, choose(*model, "bn"));  // where fine-tuning of "bn" began
  const Samples samples{.inputs = Random(2).normal_tensor({8, 28, 28, 1}),
                        .labels = Tensor::from<int64_t>({8}, {0, 1, 0, 1, 0, 1, 0, 1}),
                        .ids = {10, 11, 12, 13, 14, 15, 16, 17}};

  Prepared state = Prepared::prepare(folder, model, {}, "bn", theta0, samples, "mse", /*ρ=*/0.8);  // once
  const RequestRecord record = state.forget({12, 17});  // durable in `folder` when it returns
  scatter(*model, state.subset(), record.theta);        // the network without the two
  fmt::print("{} samples remain, relative residual {:.0e}\n", record.n_after, record.relative_residual);
}
