// ⟨u, J v⟩ = ⟨Jᵀ u, v⟩ for every record of the tape of a real network.
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/random.h"
#include "models/pass.h"
#include "models/registry.h"

using namespace fastntk;

namespace {

struct Products {
  double inner = 0, magnitude = 0;  // Σ aᵢbᵢ and Σ |aᵢbᵢ|
};

void accumulate(Products& sum, const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  for (size_t i = 0; i < x.size(); i++) sum.inner += x[i] * y[i], sum.magnitude += std::abs(x[i] * y[i]);
}

// Random tangents for all active inputs, a random cotangent; `stack` leading axes.
void check_record(const Record& record, size_t number, const Shape& stack) {
  CAPTURE(number, record.op->name(), record.op->attributes(), stack.str());
  const Linearisation at(record, false);
  Random random(11, number);
  uint64_t stream = 1000 * number;
  std::vector<Variable> tangents(record.inputs.size());
  for (size_t i = 0; i < tangents.size(); i++)
    if (record.active >> i & 1U)
      tangents[i] = random.stream(++stream).normal_tensor(stack + record.input_shapes[i], record.dtype);
  const Tensor u = random.stream(++stream).normal_tensor(stack + record.output_shape, record.dtype);
  Products forwards, backwards;
  accumulate(forwards, u, record.op->jvp(at, tangents).value);
  const auto cotangents = record.op->vjp(at, u);
  REQUIRE(cotangents.size() == tangents.size());
  for (size_t i = 0; i < tangents.size(); i++) {
    CHECK(cotangents[i].defined() == tangents[i].defined());
    if (tangents[i].defined()) accumulate(backwards, cotangents[i].value, tangents[i].value);
  }
  CHECK(std::abs(forwards.inner - backwards.inner) <= 1e-12 * (forwards.magnitude + backwards.magnitude));
}

void check_tape(const Tape& tape) {
  for (size_t k = 0; k < tape.records().size(); k++)
    for (const Shape& stack : {Shape{}, Shape{3}}) check_record(tape.records()[k], k, stack);
}

}  // namespace

TEST_CASE("the dot test holds on every record of a ResNet-20 tape") {
  const Tensor x = Random(3).normal_tensor({2, 28, 28, 1}, DType::float64);
  const Tensor labels = Tensor::from<int64_t>({2}, {4, 9});
  for (const char* shortcut : {"A", "B"}) {
    CAPTURE(shortcut);
    const Model model = make_model({.architecture = "resnet20", .channels = 1, .options = {{"shortcut", shortcut}}}, 1);
    model->to(DType::float64);
    const Subset all = choose(*model, "all");
    const Subset bn = choose(*model, "bn+head");
    {
      INFO("per-sample leaves, batch norm and head");
      Tape tape;
      cross_entropy(model->forward(Pass::per_sample(*model, bn, tape, 2), x), labels);
      check_tape(tape);
    }
    if (std::string(shortcut) == "A") continue;
    {
      INFO("per-sample leaves, all parameters");
      Tape tape;
      cross_entropy(model->forward(Pass::per_sample(*model, all, tape, 2), x), labels);
      check_tape(tape);
    }
    {
      INFO("training");
      Tape tape;
      mean(cross_entropy(model->forward(Pass::shared(*model, all, tape, Mode::train), x), labels, 0.1));
      CHECK(tape.records().size() > 60);
      check_tape(tape);
    }
  }
}
