// ⟨u, J v⟩ = ⟨Jᵀ u, v⟩ for every record of the tape of a real network.
#include <catch2/catch.hpp>

#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "engine/record_checks.h"
#include "models/pass.h"
#include "models/registry.h"

using namespace fastntk;

namespace {

const std::vector<std::string> none;

Model resnet20(const std::string& shortcut) {
  Model model = make_model({.architecture = "resnet20", .channels = 1, .options = {{"shortcut", shortcut}}}, 1);
  model->to(DType::float64);
  return model;
}

}  // namespace

TEST_CASE("the dot test holds on every record of a ResNet-20 tape") {
  const Tensor x = Random(3).normal_tensor({2, 28, 28, 1}, DType::float64);
  const Tensor labels = Tensor::from<int64_t>({2}, {4, 9});
  for (const char* shortcut : {"A", "B"})
    for (const char* subset : {"bn+head", "all"}) {
      CAPTURE(shortcut, subset);
      const Model model = resnet20(shortcut);
      Tape tape;
      const Pass pass = Pass::per_sample(*model, choose(*model, subset), tape, 2);
      cross_entropy(model->forward(pass, x), labels);
      CHECK(tape.records().size() > 40);
      CHECK(test::failed_dot_tests(tape, 1e-12) == none);
    }
  const Model model = resnet20("B");
  Tape tape;
  const Pass training = Pass::shared(*model, choose(*model, "all"), tape, Mode::train);
  mean(cross_entropy(model->forward(training, x), labels, 0.1));
  CHECK(tape.records().size() > 60);
  CHECK(test::failed_dot_tests(tape, 1e-12) == none);
}

TEST_CASE("the dot test holds on every record of a ResNet-50 tape") {
  const Model model = make_model({.architecture = "resnet50", .classes = 20}, 1);
  model->to(DType::float64);
  const Tensor x = Random(3).normal_tensor({2, 64, 64, 3}, DType::float64);
  const Tensor labels = Tensor::from<int64_t>({2}, {4, 19});
  {
    Tape tape;
    const Pass pass = Pass::per_sample(*model, choose(*model, "bn+head"), tape, 2);
    cross_entropy(model->forward(pass, x), labels);
    CHECK(tape.records().size() > 110);
    CHECK(test::failed_dot_tests(tape, 1e-12) == none);
  }
  Tape tape;
  const Pass training = Pass::shared(*model, choose(*model, "all"), tape, Mode::train);
  mean(cross_entropy(model->forward(training, x), labels, 0.1));
  CHECK(tape.records().size() > 170);
  CHECK(test::failed_dot_tests(tape, 1e-12) == none);
}

TEST_CASE("the dot test holds on every record of a ViT-S tape") {
  const Model model =
      make_model({.architecture = "vit_small_patch16_224", .classes = 20, .image_height = 64, .image_width = 64}, 1);
  model->to(DType::float64);
  const Tensor x = Random(3).normal_tensor({2, 64, 64, 3}, DType::float64);
  const Tensor labels = Tensor::from<int64_t>({2}, {4, 19});
  for (const char* subset : {"ln+head", "bias", "all"}) {
    CAPTURE(subset);
    Tape tape;
    const Pass pass = Pass::shared(*model, choose(*model, subset), tape);
    mean(cross_entropy(model->forward(pass, x), labels, 0.1));
    CHECK(tape.records().size() > 130);
    CHECK(test::failed_dot_tests(tape, 1e-12) == none);
  }
  Tape tape;
  const Pass pass = Pass::per_sample(*model, choose(*model, "ln+head"), tape, 2);
  cross_entropy(model->forward(pass, x), labels);
  CHECK(test::failed_dot_tests(tape, 1e-12) == none);
}
