#include "unlearn/jacobian.h"

#include <catch2/catch.hpp>

#include "engine/parallel.h"
#include "training/gradient.h"
#include "unlearn/small_models.h"

using namespace fastntk;
using Catch::Contains;

namespace {

struct Restore {
  int threads = thread_count();
  ~Restore() { set_thread_count(threads); }
};

constexpr int64_t classes = 10;

// ResNet-20 of width 4 whose batch norms have seen something: running statistics and γ, β that are not 0 and 1.
Model small_resnet(DType dtype) {
  Model model =
      make_model({.architecture = "resnet20", .classes = classes, .channels = 1, .options = {{"width", "4"}}}, 3);
  model->to(dtype);
  uint64_t k = 0;
  for (const auto& [name, b] : model->named_buffers())
    if (is_floating(b->value.dtype()))
      b->value.copy_from(scale(shift(Random(8, k++).uniform_tensor(b->value.shape(), DType::float64), 0.5), 0.6).value);
  for (const auto& e : choose(*model, "bn").entries) {
    const Parameter* const p = model->named_parameters()[e.index].second;
    Tensor value = p->value;
    value.copy_from(scale(shift(Random(9, k++).uniform_tensor(value.shape(), DType::float64), 0.3), 1.2).value);
  }
  return model;
}

// Row (i, c) by one sample alone on a tape with shared leaves, one plain vjp per class.
Tensor loop_over_samples(const Module& model, const Subset& subset, const Tensor& inputs, int64_t outputs) {
  const int64_t n = inputs.extent(0);
  Tensor rows = Tensor::zeros({n, outputs, subset.size()}, inputs.dtype());
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < outputs; c++) {
      Tape tape;
      const Pass pass = Pass::shared(model, subset, tape);
      const Variable f = model.forward(pass, inputs.slice(0, i, i + 1));
      Tensor cotangent = Tensor::zeros({1, outputs}, inputs.dtype());
      cotangent.slice(1, c, c + 1).fill(1);
      const auto gradients = tape.vjp(f, cotangent, pass.leaves());
      for (size_t k = 0; k < gradients.size(); k++) {
        const auto& e = subset.entries[k];
        const int64_t end = e.offset + e.shape.elements();
        if (gradients[k].defined())
          rows.select(0, i)
              .select(0, c)
              .slice(0, e.offset, end)
              .copy_from(gradients[k].value.reshape({e.shape.elements()}));
      }
    }
  return rows;
}

// A parameter that forward() uses, one that it uses for nothing, and one that it never asks for.
class Untouched final : public Module {
 public:
  Untouched()
      : idle_(add_parameter("idle", {2, 3}, Initial::normal(1))),
        dead_(add_parameter("dead", {3}, Initial::constant(-100))),
        used_(add_child("fc", std::make_unique<Linear>(3, 2))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    return used_.forward(pass, x + relu(pass.parameter(dead_)));
  }

 private:
  Parameter& idle_;
  Parameter& dead_;
  Linear& used_;
};

}  // namespace

TEST_CASE("with fewer features than logits, rows of the features are multiplied by the classifier", "[jacobian]") {
  const Model convolutional =
      make_model({.architecture = "convnet", .classes = 9, .channels = 1, .options = {{"width", "1"}}}, 5);
  convolutional->to(DType::float64);
  const Tensor inputs = Random(6).normal_tensor({5, 8, 8, 1}, DType::float64);
  for (const char* const specification : {"all", "bn", "head", "bn+fc.bias", "conv2.*+fc.weight"}) {
    INFO(specification);
    const Subset subset = choose(*convolutional, specification);
    const JacobianPlan plan = plan_jacobian(*convolutional, subset, inputs, {});
    CHECK(plan.outputs == 9);
    // Nothing is below the classifier where it alone is tuned.
    CHECK(plan.rows == (subset.specification == "head" ? 9 : 4));
    const Tensor expected = loop_over_samples(*convolutional, subset, inputs, 9);
    const Jacobian j = jacobian(*convolutional, subset, inputs, {.tile = 2});
    CHECK(relative_error(eigen(j.rows.reshape({j.rows.elements()})), eigen(expected.reshape({expected.elements()}))) <
          1e-13);
    CHECK(same_bits(j.rows, jacobian(*convolutional, subset, inputs, {.tile = 5, .classes = 3}).rows));
    CHECK(same_bits(j.rows, jacobian(*convolutional, subset, inputs, {.recompute = Recompute::always}).rows));
  }
}

TEST_CASE("Jacobian rows equal a loop over samples and classes") {
  const DType dtype = GENERATE(DType::float64, DType::float32);
  const std::string specification = GENERATE(as<std::string>{}, "bn", "head", "bn+head", "all");
  CAPTURE(name_of(dtype), specification);
  const Model model = small_resnet(dtype);
  const Subset subset = choose(*model, specification);
  const Samples data = random_samples(3, {12, 12, 1}, classes, 2, dtype);
  const Jacobian j = jacobian(*model, subset, data.inputs);
  CHECK(j.rows.shape() == Shape{3, classes, subset.size()});
  const double error = relative_error(eigen(j.rows), eigen(loop_over_samples(*model, subset, data.inputs, classes)));
  CHECK(error <= (dtype == DType::float64 ? 1e-13 : 2e-5));
  CHECK(same_bits(j.logits, predict(*model, data.inputs)));
}

TEST_CASE("Jacobian rows have the same bits for any tile, class stack, thread count and memory budget") {
  const Restore restore;
  const Model model = small_resnet(DType::float32);
  const Subset subset = choose(*model, "bn+head");
  const Samples data = random_samples(8, {12, 12, 1}, classes, 2, DType::float32);
  set_thread_count(1);
  const Jacobian expected = jacobian(*model, subset, data.inputs, {.tile = 1, .classes = 1});
  const auto check = [&](const JacobianOptions& options) {
    CAPTURE(thread_count(), options.tile, options.classes, options.memory);
    const Jacobian j = jacobian(*model, subset, data.inputs, options);
    CHECK(same_bits(j.rows, expected.rows));
    CHECK(same_bits(j.logits, expected.logits));
  };
  int budgets = 0;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    check({});
    for (const int64_t tile : {1, 3, 7})
      for (const int64_t stack : {1, 4, 10}) check({.tile = tile, .classes = stack});
    const size_t most = plan_jacobian(*model, subset, data.inputs, {}).bytes_per_thread * static_cast<size_t>(threads);
    for (const size_t part : {1, 2, 5, 10}) {
      const JacobianOptions options{.memory = most / part};
      JacobianPlan plan;
      try {
        plan = plan_jacobian(*model, subset, data.inputs, options);
      } catch (const UsageError&) {
        continue;
      }
      CHECK(plan.bytes_per_thread * static_cast<size_t>(threads) <= options.memory);
      check(options);
      budgets++;
    }
  }
  CHECK(budgets >= 6);
}

TEST_CASE("a memory budget that is too small is refused, and the smallest one that is named will do") {
  const Restore restore;
  set_thread_count(2);
  const Model model = small_resnet(DType::float32);
  const Subset subset = choose(*model, "bn");
  const Samples data = random_samples(3, {12, 12, 1}, classes, 2, DType::float32);
  for (const JacobianOptions& base : {JacobianOptions{}, JacobianOptions{.tile = 3}, JacobianOptions{.classes = 4}}) {
    JacobianOptions options = base;
    options.memory = 1000;
    std::string message;
    try {
      plan_jacobian(*model, subset, data.inputs, options);
    } catch (const UsageError& e) {
      message = e.what();
    }
    const std::string before = "the smallest budget that does is ";
    REQUIRE_THAT(message, Contains("does not fit into 1000 B on 2 threads") && Contains(before));
    const size_t smallest = std::stoull(message.substr(message.find(before) + before.size()));
    options.memory = smallest;
    CHECK_NOTHROW(jacobian(*model, subset, data.inputs, options));
    options.memory = smallest - 1;
    CHECK_THROWS_AS(plan_jacobian(*model, subset, data.inputs, options), UsageError);
  }
}

TEST_CASE("blocks run again when memory is too small for what they keep, with the same rows") {
  const Model model = make_model({.architecture = "resnet20", .classes = 4, .channels = 1}, 1);
  const Subset subset = choose(*model, "bn+head");
  const Samples data = random_samples(5, {24, 24, 1}, 4, 2, DType::float32);
  const int before = thread_count();
  set_thread_count(1);
  JacobianOptions options{.tile = 1, .classes = 1};
  const auto peak = [&](Jacobian& out) {
    const size_t live = memory_statistics().live;
    reset_peak_memory();
    out = jacobian(*model, subset, data.inputs, options);
    return memory_statistics().peak - live;
  };
  Jacobian plain, again;
  const size_t most = peak(plain);
  const size_t needed = plan_jacobian(*model, subset, data.inputs, options).bytes_per_thread;
  options.memory = needed;
  CHECK(!plan_jacobian(*model, subset, data.inputs, options).recompute);
  options.memory = needed - 1;
  const JacobianPlan plan = plan_jacobian(*model, subset, data.inputs, options);
  CHECK(plan.recompute);
  CHECK(plan.bytes_per_thread < 7 * needed / 10);
  const size_t less = peak(again);
  CAPTURE(most, less, plan.bytes_per_thread);
  CHECK(less < 3 * most / 4);
  CHECK(same_bits(plain.rows, again.rows));
  CHECK(same_bits(plain.logits, again.logits));
  options.recompute = Recompute::never;
  CHECK_THROWS_AS(plan_jacobian(*model, subset, data.inputs, options), UsageError);
  set_thread_count(before);
}

TEST_CASE("one JVP is the product of the rows with a direction") {
  const Model model = small_resnet(DType::float64);
  const Subset subset = choose(*model, "bn+head");
  const Samples data = random_samples(6, {12, 12, 1}, classes, 2);
  const Jacobian j = jacobian(*model, subset, data.inputs);
  const Tensor v = Random(6).normal_tensor({subset.size()}, DType::float64);
  const DirectionalDerivative d = directional_derivative(*model, subset, data.inputs, v);
  const Tensor product = rows_times({j.rows, j.logits, data.labels}, all_positions(6), v);
  CHECK(relative_error(eigen(d.derivative), eigen(product)) <= 1e-12);
  CHECK(same_bits(d.logits, j.logits));

  // And the change of the logits for a small step.
  const Tensor theta = gather(*model, subset);
  const auto logits_at = [&](double t) {
    scatter(*model, subset, tensor(eigen(theta) + t * eigen(v)));
    return eigen(predict(*model, data.inputs));
  };
  const double h = 1e-6;
  CHECK(relative_error((logits_at(h) - logits_at(-h)) / (2 * h), eigen(d.derivative)) <= 1e-6);
}

TEST_CASE("parameters that change no logit have columns of zeros") {
  auto model = make_double<Untouched>(2);
  const Samples data = random_samples(4, {3}, 2, 5);
  const Subset all = choose(*model, "all");
  const Jacobian j = jacobian(*model, all, data.inputs);
  const Eigen::MatrixXd rows = eigen_matrix(j.rows, 8);
  CHECK(rows.leftCols(6 + 3).cwiseAbs().maxCoeff() == 0);
  CHECK(rows.rightCols(8).cwiseAbs().maxCoeff() > 0);
  const Jacobian idle = jacobian(*model, choose(*model, "idle"), data.inputs);
  CHECK(eigen(idle.rows).cwiseAbs().maxCoeff() == 0);
  CHECK(same_bits(idle.logits, j.logits));
  const Tensor v = Random(6).normal_tensor({6}, DType::float64);
  CHECK(eigen(directional_derivative(*model, choose(*model, "idle"), data.inputs, v).derivative).norm() == 0);
}

TEST_CASE("a Jacobian of nothing, in nothing or of another type is refused") {
  const Model model = small_resnet(DType::float32);
  const Subset subset = choose(*model, "bn");
  CHECK_THROWS_WITH(jacobian(*model, subset, Tensor::zeros({0, 12, 12, 1})), Contains("n > 0"));
  CHECK_THROWS_WITH(jacobian(*model, subset, Tensor::zeros({2, 12, 12, 1}, DType::float64)),
                    Contains("inputs are float64, the model is float32"));
  CHECK_THROWS_WITH(jacobian(*model, Subset{}, Tensor::zeros({2, 12, 12, 1})), Contains("in no parameters"));
  CHECK_THROWS_WITH(directional_derivative(*model, subset, Tensor::zeros({2, 12, 12, 1}), Tensor::zeros({3})),
                    Contains("a direction of " + std::to_string(subset.size())));
}
