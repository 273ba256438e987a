// Training on a device against training on the CPU.
#include <catch2/catch.hpp>
#include <cmath>

#include "models/registry.h"
#include "test_device.h"
#include "training/curvature.h"
#include "training/small_training.h"
#include "training/trainer.h"
#include "worse.h"

using namespace fastntk;
using test::test_device;

namespace {

constexpr int64_t n = 20;

Model double_resnet() { return small_resnet(DType::float64); }
Samples double_samples() { return samples(n, DType::float64); }

TrainConfig config_of(Mode mode, const std::string& optimiser) {
  TrainConfig config;
  config.mode = mode;
  config.optimiser = {.kind = optimiser, .nesterov = optimiser == "sgd", .weight_decay = 1e-3};
  config.epochs = 2;
  config.batch_size = 8;
  config.learning_rate = 0.01;
  config.schedule = {"cosine:0.2"};
  config.l2 = 0.01;
  config.augmentation = {.flip = true, .crop = 1};
  return config;
}

void check_close(const std::vector<double>& got, const std::vector<double>& expected, double allowed) {
  REQUIRE(got.size() == expected.size());
  double largest = 0, difference = 0;
  for (size_t i = 0; i < got.size(); i++) {
    largest = std::max(largest, std::abs(expected[i]));
    difference = test::worse(difference, std::abs(got[i] - expected[i]));
  }
  CHECK(difference <= allowed * largest);
}

}  // namespace

TEST_CASE("training on a device goes where it goes on the CPU", "[device]") {
  const std::string optimiser = GENERATE(as<std::string>{}, "sgd", "adam", "adamw");
  const bool whole = GENERATE(true, false);
  CAPTURE(optimiser, whole);
  const TrainConfig config = config_of(whole ? Mode::train : Mode::eval, optimiser);
  const auto trained = [&](Device device) {
    Model model = double_resnet();
    model->to(device);
    const TrainResult result = train(*model, choose(*model, whole ? "all" : "bn+head"), double_samples(), config, "");
    CHECK(model->device() == device);
    return std::pair(contents(*model), result.epoch_loss);
  };
  const auto [here, loss_here] = trained(Device::cpu);
  const auto [there, loss_there] = trained(test_device());
  // Adam divides by the root of what may be a rounding error.
  check_close(there, here, optimiser == "sgd" ? 1e-11 : 1e-7);
  check_close(loss_there, loss_here, optimiser == "sgd" ? 1e-11 : 1e-7);
}

TEST_CASE("class weights go to the device of the logits", "[device]") {
  Model model = double_resnet();
  std::string loss = "ce:1";
  for (int64_t c = 1; c < model.config.classes; c++) loss += ",2";
  const auto trained = [&](Device device) {
    Model copy = double_resnet();
    copy->to(device);
    const Subset head = choose(*copy, "head");
    return batch_gradient(*copy, head, Mode::eval, double_samples().inputs, double_samples().labels, find_loss(loss))
        .loss;
  };
  CHECK(trained(test_device()) == Approx(trained(Device::cpu)).epsilon(1e-12));
}

TEST_CASE("products with second derivatives on a device are those of the CPU", "[device]") {
  Model model = double_resnet();
  const Subset subset = choose(*model, "bn+head");
  const Tensor v = Random(3).normal_tensor({2, subset.size()}, DType::float64);
  const Loss& loss = find_loss("ce");
  const std::vector<double> curved = hvp(*model, subset, double_samples(), loss, v).to_vector<double>(),
                            linear = ggn_vp(*model, subset, double_samples(), loss, v).to_vector<double>();
  model->to(test_device());
  check_close(hvp(*model, subset, double_samples(), loss, v).to_vector<double>(), curved, 1e-12);
  check_close(ggn_vp(*model, subset, double_samples(), loss, v).to_vector<double>(), linear, 1e-12);
}
