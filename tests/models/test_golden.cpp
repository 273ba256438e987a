// Values that PyTorch computed: see tests/golden/make_golden.py.
#include "golden/golden.h"

#include <catch2/catch.hpp>

#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "models/checkpoint.h"
#include "models/pass.h"
#include "models/resnet.h"

using namespace fastntk;
using test::relative_error;

namespace {

const test::Golden& golden() {
  static const test::Golden file("golden_resnet.safetensors");
  return file;
}
Tensor golden(const std::string& name) { return golden()(name); }
NamedTensors with_prefix(const std::string& prefix) { return golden().with_prefix(prefix); }

std::unique_ptr<ResNet> load(const ResNetShape& shape, const std::string& name, DType dtype) {
  auto model = std::make_unique<ResNet>(shape);
  model->to(dtype);
  load_state(*model, with_prefix(name + ".model."), "the golden file");
  return model;
}

const ResNetShape basic{.blocks = {1, 1, 1}, .width = 4, .stem = Stem::cifar, .channels = 2, .classes = 5};
const ResNetShape bottleneck{.blocks = {2, 1}, .bottleneck = true, .width = 4, .channels = 3, .classes = 4};

// Rows [N, C, P] from per-sample leaves, one stacked sweep for all classes.
Tensor jacobian(const Module& model, const Subset& subset, const Tensor& x, Variable& logits) {
  const int64_t n = x.extent(0);
  Tape tape;
  const Pass pass = Pass::per_sample(model, subset, tape, n);
  logits = model.forward(pass, x);
  const int64_t classes = logits.extent(1);
  Tensor seeds = Tensor::zeros({classes, n, classes}, x.dtype());
  for (int64_t c = 0; c < classes; c++) seeds.select(0, c).slice(1, c, c + 1).fill(1);
  const auto cotangents = tape.vjp(logits, seeds, pass.leaves());
  Tensor rows({n, classes, subset.size()}, x.dtype());
  for (size_t i = 0; i < cotangents.size(); i++) {
    const int64_t from = subset.entries[i].offset, count = subset.entries[i].shape.elements();
    rows.slice(2, from, from + count).copy_from(cotangents[i].value.reshape({classes, n, count}).transpose(0, 1));
  }
  logits = logits.constant();
  return rows;
}

}  // namespace

TEST_CASE("logits, Jacobian rows and Gram of a small ResNet are PyTorch's") {
  const test::ExactConvolution exact;
  for (const DType dtype : {DType::float32, DType::float64})
    for (const bool basic_blocks : {true, false}) {
      const std::string name = basic_blocks ? "basic" : "bottleneck";
      CAPTURE(name, name_of(dtype));
      const double tolerance = test::golden_tolerance(dtype);
      const auto model = load(basic_blocks ? basic : bottleneck, name, dtype);
      const Tensor x = golden(name + ".input").to(dtype);
      Variable logits;
      const Tensor rows = jacobian(*model, choose(*model, "bn+head"), x, logits);
      CHECK(relative_error(logits.value, golden(name + ".logits")) < tolerance);
      CHECK(relative_error(rows, golden(name + ".jacobian")) < tolerance);
      // The Gram of stored rows, in float64 whatever their type.
      const Tensor flat = rows.to(DType::float64).reshape({rows.extent(0) * rows.extent(1), rows.extent(2)});
      Tensor gram({flat.extent(0), flat.extent(0)}, DType::float64);
      const auto j = flat.to_vector<double>();
      const auto m = static_cast<size_t>(flat.extent(0)), p = static_cast<size_t>(flat.extent(1));
      for (size_t a = 0; a < m; a++)
        for (size_t b = 0; b < m; b++) {
          double sum = 0;
          for (size_t k = 0; k < p; k++) sum += j[a * p + k] * j[b * p + k];
          gram.mutable_data<double>()[a * m + b] = sum;
        }
      CHECK(relative_error(gram, golden(name + ".gram")) < tolerance);
    }
}

TEST_CASE("one training step's loss, gradient of all parameters and running statistics are PyTorch's") {
  const test::ExactConvolution exact;
  for (const DType dtype : {DType::float32, DType::float64}) {
    CAPTURE(name_of(dtype));
    const double tolerance = test::golden_tolerance(dtype);
    const auto model = load(basic, "basic", dtype);
    const Subset all = choose(*model, "all");
    Tape tape;
    const Pass pass = Pass::shared(*model, all, tape, Mode::train);
    const Variable logits = model->forward(pass, golden("basic.input").to(dtype));
    const Variable loss = mean(cross_entropy(logits, Tensor::from<int64_t>({6}, {0, 1, 2, 3, 4, 0})));
    CHECK(loss.value.item() == Approx(golden("basic.train.loss").item()).epsilon(tolerance));
    const auto gradients = tape.vjp(loss, Tensor::scalar(1, dtype), pass.leaves());
    Tensor flat({all.size()}, dtype);
    for (size_t i = 0; i < gradients.size(); i++) {
      const int64_t from = all.entries[i].offset, count = all.entries[i].shape.elements();
      REQUIRE(gradients[i].shape() == Shape{1} + all.entries[i].shape);
      flat.slice(0, from, from + count).copy_from(gradients[i].value.reshape({count}));
    }
    CHECK(relative_error(flat, golden("basic.train.gradient")) < tolerance);
    const auto expected = with_prefix("basic.train.model.");
    const auto buffers = model->named_buffers();
    REQUIRE(expected.size() == buffers.size());
    for (const auto& [name, b] : buffers) {
      CAPTURE(name);
      CHECK(relative_error(b->value, golden("basic.train.model." + name)) < tolerance);
    }
  }
}
