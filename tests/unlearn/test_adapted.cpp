// Every update rule on a vision transformer, in every kind of parameters that fine-tuning may add or choose.
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/progress.h"
#include "models/small_vit.h"
#include "unlearn/experiment.h"
#include "unlearn/jacobian.h"
#include "unlearn/small_models.h"

using namespace fastntk;

namespace {

const std::vector<std::string> subsets{"prompt:2",  "prompt-deep:2", "prompt:2+head",       "prompt-frame:1+head",
                                       "ln+head",   "bitfit+head",   "lora:2+head",         "adapter:3+head",
                                       "lora:1+ln", "all",           "prompt:1+lora:1+head"};

// Away from the start, where half of LoRA and of the adapters is zero and the derivatives in the other half with it.
Model adapted(const std::string& name) {
  Model model = adapt(small_vit(), name, 3);
  const Subset subset = choose(*model, name);
  scatter(
      *model, subset,
      tensor(eigen(gather(*model, subset)) + 0.1 * eigen(Random(8).normal_tensor({subset.size()}, DType::float64))));
  return model;
}

}  // namespace

TEST_CASE("Jacobian rows of a vision transformer in every kind of subset are its directional derivatives") {
  for (const std::string& name : subsets) {
    CAPTURE(name);
    const Model model = adapted(name);
    const Subset subset = choose(*model, name);
    const Tensor x = small_images(5);
    const Jacobian j = jacobian(*model, subset, x);
    const Tensor v = Random(9).normal_tensor({subset.size()}, DType::float64);
    const DirectionalDerivative d = directional_derivative(*model, subset, x, v);
    const Eigen::MatrixXd rows = eigen_matrix(j.rows, 5 * 4);
    CHECK(relative_error(rows * eigen(v), eigen(d.derivative)) < 1e-11);
    CHECK(relative_error(eigen(j.logits), eigen(d.logits)) < 1e-12);
    // And central differences of the logits.
    const Tensor theta = gather(*model, subset);
    const double step = 1e-5;
    const auto logits = [&](double t) {
      scatter(*model, subset, tensor(eigen(theta) + t * eigen(v)));
      return eigen(predict(*model, x));
    };
    CHECK(relative_error((logits(step) - logits(-step)) / (2 * step), eigen(d.derivative)) < 1e-7);
  }
}

TEST_CASE("every update rule runs on a vision transformer in every kind of subset") {
  Progress::set_quiet(true);
  const Samples data = random_samples(16, {12, 8, 3}, 4, 5), test = random_samples(8, {12, 8, 3}, 4, 6);
  for (const std::string& name : subsets)
    for (const std::string loss : {"mse", "ce"}) {
      CAPTURE(name, loss);
      const Model model = adapted(name);
      ExperimentConfig config;
      config.subset = name;
      config.finetune.loss = loss;
      config.finetune.learning_rate = 0.01;
      config.finetune.batch_size = 8;
      config.finetune.l2 = 0.1;
      config.finetune.mode = Mode::eval;
      config.rules = closed_form_rules(loss);
      config.rules.push_back("relinearise:2");
      const Finetuned tuned = finetune(*model, choose(*model, name), data, config.finetune, "finetune", "");
      const auto rows = run_tasks(*model, tuned, data, test, {{.name = "three", .forget = {1, 6, 11}}}, config);
      REQUIRE(rows.size() == 3 + config.rules.size());
      const double original = rows[1].objective_retain;
      for (const ReportRow& r : rows) {
        CAPTURE(r.method);
        CHECK(r.parameters == choose(*model, name).size());
        CHECK(std::isfinite(r.objective_retain));
        if (r.method == "relinearise:2") CHECK(r.objective_retain < original);
      }
    }
}
