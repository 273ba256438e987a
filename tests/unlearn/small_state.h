// A prepared state of twenty small images, for tests of requests and of what is said about them.
#pragma once
#include "unlearn/prepared.h"
#include "unlearn/small_models.h"

namespace fastntk::test {

struct SmallState {
  static constexpr int64_t n = 20;
  Model model = make_model({.architecture = "resnet20", .classes = 4, .channels = 1, .options = {{"width", "4"}}}, 3);
  Samples samples = random_samples(n, {8, 8, 1}, 4, 5, DType::float32);
  Subset subset = choose(*model, "bn");
  Tensor theta0 = Random(4).normal_tensor({subset.size()}, DType::float64);
  double ridge = 2;
  Prepared prepare(const std::string& folder, int64_t crossover, const std::string& loss = "mse") const {
    return Prepared::prepare(folder, model, {}, "bn", theta0, samples, loss, ridge, {.crossover = crossover});
  }
};

}  // namespace fastntk::test
