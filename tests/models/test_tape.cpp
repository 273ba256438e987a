// What a forward pass of a ResNet leaves on the tape.
#include <algorithm>
#include <catch2/catch.hpp>

#include "engine/parallel.h"
#include "engine/random.h"
#include "models/pass.h"
#include "models/registry.h"

using namespace fastntk;

namespace {

Model resnet20(const std::string& shortcut = "B") {
  return make_model({.architecture = "resnet20", .channels = 1, .options = {{"width", "4"}, {"shortcut", shortcut}}},
                    1);
}

Tensor images(int64_t n, DType dtype = DType::float32) { return Random(7).normal_tensor({n, 12, 12, 1}, dtype); }

int64_t count(const Tape& tape, const std::string& op) {
  return std::count_if(tape.records().begin(), tape.records().end(),
                       [&](const Record& r) { return r.op->name() == op; });
}

}  // namespace

TEST_CASE("with the subset bn nothing is recorded before the first batch norm, and frozen layers save no activation") {
  const Model model = resnet20();
  const Subset bn = choose(*model, "bn");
  Tape tape;
  const Pass pass = Pass::per_sample(*model, bn, tape, 3);
  const Variable logits = model->forward(pass, images(3));
  CHECK(logits.active());
  REQUIRE(!tape.records().empty());
  CHECK(tape.records()[0].op->name() == "batch_norm_eval");
  CHECK(tape.records()[0].inputs[0] == -1);  // the stem's convolution is a constant
  CHECK(count(tape, "batch_norm_eval") == 21);
  CHECK(count(tape, "conv2d") == 20);
  CHECK(count(tape, "relu") == 0);  // all fused
  for (const Record& r : tape.records()) {
    if (r.op->name() != "conv2d" && r.op->name() != "linear") continue;
    CHECK(r.active == 1);
    CHECK(!r.saved_inputs[0].defined());
    CHECK(r.saved_inputs[1].defined());
    CHECK(!r.saved_output.defined());
    CHECK(r.extras.empty());
  }
}

TEST_CASE("with the subset head only the head is recorded") {
  const Model model = resnet20();
  Tape tape;
  const Pass pass = Pass::shared(*model, choose(*model, "head"), tape);
  const Variable logits = model->forward(pass, images(3));
  std::vector<std::string> ops;
  for (const Record& r : tape.records()) ops.push_back(r.op->name());
  CHECK(ops == std::vector<std::string>{"linear", "reshape", "add"});
  CHECK(tape.records()[0].inputs[0] == -1);
  CHECK(tape.records()[0].output_shape == Shape{3, 1, 10});
  CHECK(logits.shape() == Shape{3, 10});
}

TEST_CASE("without active parameters nothing is recorded") {
  const Model model = resnet20();
  CHECK(!model->forward(Pass(), images(2)).active());
}

TEST_CASE("leaves have the axis of samples in front, one per parameter of the subset, used or not") {
  const Model model = resnet20();
  const Subset all = choose(*model, "all");
  const auto parameters = model->named_parameters();
  for (const bool per_sample : {false, true}) {
    Tape tape;
    const Pass pass = per_sample ? Pass::per_sample(*model, all, tape, 3) : Pass::shared(*model, all, tape);
    REQUIRE(pass.leaves().size() == parameters.size());
    for (size_t i = 0; i < parameters.size(); i++) {
      CHECK(pass.leaves()[i].shape() == Shape{per_sample ? 3 : 1} + parameters[i].second->value.shape());
      CHECK(pass.leaves()[i].value.storage() == parameters[i].second->value.storage());
    }
    const Variable logits = model->forward(pass, images(3));
    const auto cotangents = tape.vjp(logits, Tensor::full({2, 3, 10}, 1), pass.leaves());
    for (size_t i = 0; i < parameters.size(); i++) CHECK(cotangents[i].shape() == Shape{2} + pass.leaves()[i].shape());
  }
  Tape tape;
  const Pass unused = Pass::shared(*model, choose(*model, "fc.bias"), tape);
  CHECK(tape.vjp(unused.leaves()[0], Tensor::full({1, 10}, 1), unused.leaves())[0].defined());
}

TEST_CASE("train mode mixes samples, so per-sample leaves are refused there and shared ones are not") {
  const Model model = resnet20();
  const Subset bn = choose(*model, "bn");
  Tape shared, tape;
  CHECK(model->forward(Pass::shared(*model, bn, shared, Mode::train), images(3)).active());
  const Pass eval = Pass::per_sample(*model, bn, tape, 3);
  const Pass train(*model, bn, {eval.leaves().begin(), eval.leaves().end()}, Mode::train);
  CHECK_THROWS_WITH(model->forward(train, images(3)), Catch::Contains("mixes samples"));
}

TEST_CASE("a pass takes parameters from outside, and refuses what does not fit") {
  const Model model = resnet20();
  const Subset bias = choose(*model, "fc.bias");
  const Tensor x = images(2);
  const Tensor plain = model->forward(Pass(), x).value;
  const Tensor moved = model->forward(Pass(*model, bias, {Tensor::full({1, 10}, 100)}), x).value;
  CHECK(moved.to_vector<float>()[0] - plain.to_vector<float>()[0] > 99);
  CHECK_THROWS_WITH(Pass(*model, bias, {Tensor::zeros({10})}), Catch::Contains("[1 or N] followed by [10]"));
  CHECK_THROWS_WITH(Pass(*model, bias, {}), Catch::Contains("1 tensors, got 0 variables"));
  CHECK_THROWS_WITH(model->forward(Pass(), Tensor::zeros({2, 12, 12, 3})), Catch::Contains("[N, H, W, 1]"));
  CHECK_THROWS_WITH(model->forward(Pass(), images(2, DType::float64)), Catch::Contains("takes float32 images"));
}

TEST_CASE("eval mode: the same bits for every batch size, number of threads, and alongside other passes") {
  const int threads = thread_count();
  for (const char* shortcut : {"A", "B"}) {
    const Model model = resnet20(shortcut);
    const Tensor x = images(5);
    set_thread_count(1);
    const auto expected = model->forward(Pass(), x).value.to_vector<float>();
    set_thread_count(2);
    CHECK(model->forward(Pass(), x).value.to_vector<float>() == expected);
    for (int64_t i = 0; i < 5; i++) {
      const auto one = model->forward(Pass(), x.slice(0, i, i + 1)).value.to_vector<float>();
      CHECK(one == std::vector<float>(expected.begin() + 10 * i, expected.begin() + 10 * (i + 1)));
    }
    std::vector<std::vector<float>> together(4);
    parallel_for(
        4, [&](int64_t i) { together[static_cast<size_t>(i)] = model->forward(Pass(), x).value.to_vector<float>(); });
    for (const auto& logits : together) CHECK(logits == expected);
    for (const auto& [name, b] : model->named_buffers())
      if (name.ends_with("num_batches_tracked")) CHECK(b->value.item() == 0);
  }
  set_thread_count(threads);
}
