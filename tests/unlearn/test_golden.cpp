// Derivatives of both orders and training, against PyTorch's: see tests/golden/make_calculus.py.
#include "golden/golden.h"

#include <catch2/catch.hpp>

#include "engine/gram.h"
#include "models/checkpoint.h"
#include "models/resnet.h"
#include "training/curvature.h"
#include "training/gradient.h"
#include "training/trainer.h"
#include "unlearn/jacobian.h"

using namespace fastntk;
using test::relative_error;

namespace {

const test::Golden& golden() {
  static const test::Golden file("golden_calculus.safetensors");
  return file;
}

std::unique_ptr<ResNet> load(DType dtype) {
  auto model = std::make_unique<ResNet>(
      ResNetShape{.blocks = {1, 1, 1}, .width = 4, .stem = Stem::cifar, .channels = 2, .classes = 5});
  model->to(dtype);
  load_state(*model, golden().with_prefix("model."), "the golden file");
  return model;
}

Samples samples(DType dtype) {
  Samples s{golden()("input").to(dtype), golden()("labels"), {}};
  for (int64_t i = 0; i < s.labels.extent(0); i++) s.ids.push_back(i);
  return s;
}

}  // namespace

TEST_CASE("a JVP, a gradient, a Hessian and a Gauss-Newton product and a block of the NTK are PyTorch's") {
  const test::ExactConvolution exact;
  for (const DType dtype : {DType::float32, DType::float64}) {
    CAPTURE(name_of(dtype));
    const double tolerance = test::golden_tolerance(dtype);
    const auto model = load(dtype);
    const Samples s = samples(dtype);
    const Subset all = choose(*model, "all");
    const Tensor v = golden()("direction").to(DType::float64);
    const Loss& ce = find_loss("ce");
    const double n = static_cast<double>(s.size());
    const auto mean = [&](const Tensor& sum) {
      Tensor out = sum.clone();
      for (int64_t i = 0; i < out.elements(); i++) out.mutable_data<double>()[i] /= n;
      return out;
    };
    CHECK(relative_error(directional_derivative(*model, all, s.inputs, v).derivative, golden()("jvp")) < tolerance);
    const BatchGradient g = batch_gradient(*model, all, Mode::eval, s.inputs, s.labels, ce);
    Tensor gradient({all.size()}, DType::float64);
    for (size_t k = 0; k < g.gradient.size(); k++) {
      const int64_t from = all.entries[k].offset, count = all.entries[k].shape.elements();
      gradient.slice(0, from, from + count).copy_from(g.gradient[k].reshape({count}).to(DType::float64));
    }
    CHECK(relative_error(mean(gradient), golden()("gradient")) < tolerance);
    CHECK(relative_error(mean(hvp(*model, all, s, ce, v)), golden()("hvp")) < tolerance);
    CHECK(relative_error(mean(ggn_vp(*model, all, s, ce, v)), golden()("ggn")) < tolerance);

    const Subset tuned = choose(*model, "bn+head");
    const Tensor a = jacobian(*model, tuned, s.inputs.slice(0, 0, 3)).rows;
    const Tensor b = jacobian(*model, tuned, s.inputs.slice(0, 3, 7)).rows;
    CHECK(relative_error(dual_gram(a, b), golden()("ntk")) < tolerance);
  }
}

TEST_CASE("twenty steps of SGD, of AdamW and of a one-cycle schedule end where PyTorch's end") {
  const test::ExactConvolution exact;
  struct Case {
    const char* name;
    TrainConfig config;
  };
  TrainConfig sgd, adamw, one_cycle;
  sgd.optimiser = {.momentum = 0.9, .nesterov = true, .weight_decay = 5e-4};
  sgd.learning_rate = 0.05;
  adamw.optimiser = {.kind = "adamw", .epsilon = 1e-4, .weight_decay = 0.01};
  adamw.learning_rate = 0.01;
  one_cycle.optimiser = {.momentum = 0.9};
  one_cycle.learning_rate = 0.05;
  one_cycle.schedule = Schedule::parse("one-cycle");
  for (const DType dtype : {DType::float32, DType::float64})
    for (auto& [name, config] : {Case{"sgd", sgd}, Case{"adamw", adamw}, Case{"one-cycle", one_cycle}}) {
      CAPTURE(name, name_of(dtype));
      const auto model = load(dtype);
      const Samples s = samples(dtype);
      TrainConfig c = config;
      c.epochs = 20;
      c.batch_size = s.size();
      const TrainResult result = train(*model, choose(*model, "all"), s, c, "golden");
      CHECK(result.steps == 20);
      const double tolerance = test::golden_tolerance(dtype);
      CHECK(relative_error(Tensor::from<double>({20}, result.epoch_loss), golden()(std::string(name) + ".loss")) <
            tolerance);
      const std::string prefix = std::string(name) + ".model.";
      double difference = 0, size = 0;
      const auto compare = [&](const std::string& key, const Tensor& value) {
        const Tensor expected = golden()(prefix + key);
        REQUIRE(value.shape() == expected.shape());
        const auto x = value.to(DType::float64).to_vector<double>();
        const auto y = expected.to(DType::float64).to_vector<double>();
        for (size_t i = 0; i < x.size(); i++) difference += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
      };
      for (const auto& [key, p] : model->named_parameters()) compare(key, p->value);
      CHECK(std::sqrt(difference / size) < tolerance);
      difference = size = 0;
      for (const auto& [key, b] : model->named_buffers()) compare(key, b->value);
      CHECK(std::sqrt(difference / size) < tolerance);
    }
}
