// Whole models on the emulator against the CPU: logits, Jacobian rows and Gram matrices.
#include <catch2/catch.hpp>

#include "datasets/registry.h"
#include "engine/gram.h"
#include "models/small_vit.h"
#include "training/gradient.h"
#include "unlearn/jacobian.h"
#include "unlearn/small_models.h"

using namespace fastntk;

namespace {

// The largest difference, relative to the largest element.
double difference(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.shape() == expected.shape());
  return (eigen(got) - eigen(expected)).cwiseAbs().maxCoeff() / eigen(expected).cwiseAbs().maxCoeff();
}

// Everything that unlearning asks of a model before it solves.
void check_on_emulator(Module& model, const std::string& parameters, const Tensor& inputs, double allowed) {
  const Subset subset = choose(model, parameters);
  const Jacobian here = jacobian(model, subset, inputs);
  const Tensor gram = dual_gram(here.rows, here.rows);
  const Tensor direction = Random(4).normal_tensor({subset.size()}, inputs.dtype());
  const DirectionalDerivative along = directional_derivative(model, subset, inputs, direction);
  model.to(Device::emu);
  const Tensor there = inputs.to(Device::emu);
  const Jacobian j = jacobian(model, subset, there);
  CHECK(j.rows.device() == Device::emu);
  CHECK(difference(j.logits, here.logits) <= allowed);
  CHECK(difference(j.rows, here.rows) <= allowed);
  CHECK(difference(dual_gram(j.rows, j.rows), gram) <= allowed);
  CHECK(difference(dual_gram(j.rows).dense(), gram) <= allowed);
  CHECK(difference(predict(model, there), here.logits) <= allowed);
  CHECK(difference(directional_derivative(model, subset, there, direction.to(Device::emu)).derivative,
                   along.derivative) <= allowed);
}

}  // namespace

TEST_CASE("a ResNet-20 gives on the emulator what it gives on the CPU, for garments", "[emu]") {
  const DType dtype = GENERATE(DType::float64, DType::float32);
  Model model = make_model({.architecture = "resnet20", .classes = 10, .channels = 1, .options = {{"width", "4"}}}, 3);
  model->to(dtype);
  const Dataset garments = load_dataset("fashion-mnist");
  const Tensor inputs = scale(garments.images().slice(0, 0, 2).to(dtype), 1 / 255.0).value;
  check_on_emulator(*model, "bn+head", inputs, dtype == DType::float64 ? 1e-12 : 1e-5);
}

TEST_CASE("a vision transformer gives on the emulator what it gives on the CPU", "[emu]") {
  Model model = small_vit({{"prompts", "2"}, {"lora", "2"}});
  check_on_emulator(*model, "all", small_images(2), 1e-12);
}
