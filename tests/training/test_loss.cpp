#include "training/loss.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/ops/reduce.h"
#include "engine/random.h"
#include "engine/tape.h"

using namespace fastntk;
using Catch::Contains;

namespace {

constexpr int64_t classes = 5;

std::vector<double> logits(uint64_t seed) {
  std::vector<double> f = Random(seed).normal_tensor({classes}, DType::float64).to_vector<double>();
  for (double& x : f) x *= 2;
  return f;
}

std::vector<double> gradient(const Loss& loss, const std::vector<double>& f, int64_t label) {
  std::vector<double> g(f.size());
  loss.gradient(f.data(), classes, label, g.data());
  return g;
}

}  // namespace

TEST_CASE("the gradient of a loss is that of its value") {
  const Loss& loss = find_loss(GENERATE("ce", "mse", "bce", "ce:1,2,0.5,3,1", "bce:1,2,0.5,3,1"));
  CAPTURE(loss.name);
  for (uint64_t seed = 0; seed < 5; seed++) {
    const std::vector<double> f = logits(seed);
    const int64_t label = static_cast<int64_t>(seed) % classes;
    const std::vector<double> g = gradient(loss, f, label);
    for (size_t c = 0; c < f.size(); c++) {
      constexpr double h = 1e-5;
      std::vector<double> up = f, down = f;
      up[c] += h, down[c] -= h;
      const double slope = (loss.value(up.data(), classes, label) - loss.value(down.data(), classes, label)) / (2 * h);
      CHECK(g[c] == Approx(slope).margin(1e-8));
    }
  }
}

TEST_CASE("the curvature factor of cross-entropy is a factor of diag(p) − ppᵀ, the derivative of the gradient") {
  const Loss& loss = find_loss("ce");
  for (uint64_t seed = 0; seed < 5; seed++) {
    const std::vector<double> f = logits(seed);
    std::vector<double> s(classes * classes), p = gradient(loss, f, 0);
    p[0] += 1;
    loss.curvature_factor(f.data(), classes, 0, s.data());
    for (size_t i = 0; i < classes; i++)
      for (size_t j = 0; j < classes; j++) {
        double product = 0;
        for (size_t k = 0; k < classes; k++) product += s[i * classes + k] * s[j * classes + k];
        CHECK(product == Approx((i == j ? p[i] : 0) - p[i] * p[j]).margin(1e-15));
        constexpr double h = 1e-5;
        std::vector<double> up = f, down = f;
        up[j] += h, down[j] -= h;
        CHECK(product == Approx((gradient(loss, up, 2)[i] - gradient(loss, down, 2)[i]) / (2 * h)).margin(1e-8));
      }
  }
  CHECK(!find_loss("mse").curvature_factor);
}

TEST_CASE("the curvature factor of every loss is a factor of the derivative of its gradient") {
  const Loss& loss = find_loss(GENERATE("ce", "bce", "ce:1,2,0.5,3,1", "mse:1,2,0.5,3,1", "bce:1,2,0.5,3,1"));
  CAPTURE(loss.name);
  for (uint64_t seed = 0; seed < 5; seed++) {
    const std::vector<double> f = logits(seed);
    const int64_t label = static_cast<int64_t>(seed);
    std::vector<double> s(classes * classes);
    loss.curvature_factor(f.data(), classes, label, s.data());
    for (size_t i = 0; i < classes; i++)
      for (size_t j = 0; j < classes; j++) {
        double product = 0;
        for (size_t k = 0; k < classes; k++) product += s[i * classes + k] * s[j * classes + k];
        constexpr double h = 1e-5;
        std::vector<double> up = f, down = f;
        up[j] += h, down[j] -= h;
        CHECK(product ==
              Approx((gradient(loss, up, label)[i] - gradient(loss, down, label)[i]) / (2 * h)).margin(1e-8));
      }
  }
}

TEST_CASE("class weights belong to the name of a loss") {
  const Loss& loss = find_loss("ce:1,2.5,1,1,1");
  CHECK(loss.name == "ce:1,2.5,1,1,1");
  CHECK(&find_loss("ce:1,2.5,1,1,1") == &loss);
  CHECK(class_weighted(find_loss("ce"), {1, 2.5, 1, 1, 1}).name == loss.name);
  const std::vector<double> f = logits(1);
  CHECK(loss.value(f.data(), classes, 1) == 2.5 * find_loss("ce").value(f.data(), classes, 1));
  CHECK(loss.value(f.data(), classes, 2) == find_loss("ce").value(f.data(), classes, 2));
  for (const char* const wrong : {"ce:", "ce:1,", "ce:1,x", "ce:1,-2", "ce:1,0", "ce:1,nan", "ce:1,2,,3", "ce:1 2"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(find_loss(wrong), UsageError);
    CHECK_THROWS_WITH(find_loss(wrong), Contains("a positive weight for every class"));
  }
  CHECK_THROWS_WITH(find_loss("hinge:1,2"), Contains("no loss 'hinge'"));
  CHECK_THROWS_WITH(find_loss("ce:1,2").value(f.data(), classes, 1), Contains("weights of 2 classes, the model has 5"));
  CHECK_THROWS_WITH(class_weighted(loss, {1, -1}), Contains("must be positive, got -1"));
}

TEST_CASE("what training evaluates is the same function") {
  const Loss& loss = find_loss(GENERATE("ce", "mse", "bce", "ce:1,2,0.5,3,1", "mse:1,2,0.5,3,1"));
  const Tensor f = Random(3).normal_tensor({6, classes}, DType::float64);
  const Tensor labels = Tensor::from<int64_t>({6}, {0, 1, 2, 3, 4, 0});
  Tape tape;
  const Variable x = tape.leaf(f);
  const Variable each = loss.evaluate(x, labels, 0);
  const auto values = each.value.to_vector<double>();
  const auto total = tape.vjp(sum(each), Tensor::scalar(1, DType::float64), std::vector<Variable>{x});
  const auto derivative = total[0].value.to_vector<double>();
  for (int64_t i = 0; i < 6; i++) {
    const std::vector<double> row = f.select(0, i).to_vector<double>();
    const int64_t label = labels.data<int64_t>()[i];
    CHECK(values[static_cast<size_t>(i)] == Approx(loss.value(row.data(), classes, label)).epsilon(1e-14));
    const std::vector<double> g = gradient(loss, row, label);
    for (size_t c = 0; c < classes; c++)
      CHECK(derivative[static_cast<size_t>(i) * classes + c] == Approx(g[c]).margin(1e-15));
  }
}

TEST_CASE("large logits do not overflow") {
  const Loss& loss = find_loss("ce");
  const std::vector<double> f = {4000, 0, 0, 0, -4000};
  CHECK(loss.value(f.data(), classes, 0) == 0);
  CHECK(loss.value(f.data(), classes, 4) == 8000);
  const std::vector<double> g = gradient(loss, f, 4);
  CHECK(g[0] == 1);
  CHECK(g[4] == -1);
  const Loss& binary = find_loss("bce");
  CHECK(binary.value(f.data(), classes, 0) == Approx(3 * std::log(2.0)));
  CHECK(binary.value(f.data(), classes, 4) == Approx(8000 + 3 * std::log(2.0)));
  CHECK(gradient(binary, f, 4) == std::vector<double>{1, 0.5, 0.5, 0.5, -1});
  std::vector<double> s(classes * classes);
  loss.curvature_factor(f.data(), classes, 0, s.data());
  for (const double x : s) CHECK(x == 0);
}

TEST_CASE("losses are found by name, and user code adds its own") {
  CHECK_THROWS_AS(find_loss("hinge"), UsageError);
  CHECK_THROWS_WITH(find_loss("hinge"), Contains("no loss 'hinge'") && Contains("bce, ce, mse"));
  const Tensor f = Tensor::zeros({1, classes}), label = Tensor::zeros({1}, DType::int64);
  CHECK_THROWS_AS(find_loss("mse").evaluate(f, label, 0.1), UsageError);
  CHECK_THROWS_WITH(find_loss("mse").evaluate(f, label, 0.1), Contains("label smoothing is for cross-entropy"));

  CHECK_THROWS_WITH(find_loss("bce").evaluate(f, label, 0.1), Contains("label smoothing is for cross-entropy"));

  Loss mine = find_loss("mse");
  CHECK_THROWS_WITH(register_loss(mine), Contains("'mse' is registered already"));
  mine.name = "test-copy-of-mse";
  const Loss& entered = register_loss(mine);
  CHECK(&find_loss("test-copy-of-mse") == &entered);
  CHECK_THROWS_WITH(register_loss({.name = "half"}), Contains("needs evaluate, value and gradient"));
}
