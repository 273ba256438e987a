#include "training/optimiser.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/random.h"

using namespace fastntk;
using Catch::Contains;

namespace {

constexpr int64_t size = 17, steps = 12;

// A gradient that depends on where θ is, so that trajectories cannot agree by accident.
double gradient_of(double theta, int64_t i, int64_t step) {
  return (1 + 0.1 * static_cast<double>(i)) * theta + 0.3 * std::sin(static_cast<double>(step + i));
}
double rate_of(int64_t step) { return 0.05 / (1 + 0.2 * static_cast<double>(step)); }

std::vector<double> start() { return Random(4).normal_tensor({size}, DType::float64).to_vector<double>(); }

// The trajectory's end by the optimiser itself, with the parameters in two tensors.
std::vector<double> by_optimiser(const OptimiserConfig& config, DType dtype = DType::float64) {
  const std::vector<double> s = start();
  Tensor a = Tensor::from<double>({2, 5}, std::vector<double>(s.begin(), s.begin() + 10)).to(dtype).clone();
  Tensor b = Tensor::from<double>({7}, std::vector<double>(s.begin() + 10, s.end())).to(dtype).clone();
  Optimiser optimiser(config, {a, b});
  for (int64_t step = 0; step < steps; step++) {
    std::vector<Tensor> gradients;
    for (const Tensor& p : {a, b}) {
      std::vector<double> g = p.to(DType::float64).to_vector<double>();
      for (size_t i = 0; i < g.size(); i++)
        g[i] = gradient_of(g[i], static_cast<int64_t>(i) + (p.rank() == 1 ? 10 : 0), step);
      gradients.push_back(Tensor::from<double>(p.shape(), g).to(dtype));
    }
    optimiser.step(gradients, rate_of(step));
  }
  CHECK(optimiser.steps() == steps);
  std::vector<double> end = a.to(DType::float64).to_vector<double>();
  for (const double x : b.to(DType::float64).to_vector<double>()) end.push_back(x);
  return end;
}

// The same by plain loops over one element after the other.
std::vector<double> by_hand(const OptimiserConfig& c) {
  std::vector<double> end = start();
  for (int64_t i = 0; i < size; i++) {
    double& theta = end[static_cast<size_t>(i)];
    double velocity = 0, mean = 0, square = 0;
    for (int64_t step = 0; step < steps; step++) {
      const double rate = rate_of(step);
      double g = gradient_of(theta, i, step);
      if (c.kind == "adamw")
        theta *= 1 - rate * c.weight_decay;
      else
        g += c.weight_decay * theta;
      if (c.kind == "sgd") {
        velocity = c.momentum * velocity + g;
        theta -= rate * (c.nesterov ? g + c.momentum * velocity : velocity);
        continue;
      }
      mean = c.beta1 * mean + (1 - c.beta1) * g;
      square = c.beta2 * square + (1 - c.beta2) * g * g;
      const double m = mean / (1 - std::pow(c.beta1, step + 1)), s = square / (1 - std::pow(c.beta2, step + 1));
      theta -= rate * m / (std::sqrt(s) + c.epsilon);
    }
  }
  return end;
}

}  // namespace

TEST_CASE("optimisers follow the trajectories of plain loops") {
  const OptimiserConfig config = GENERATE(
      OptimiserConfig{.momentum = 0}, OptimiserConfig{.momentum = 0.9},
      OptimiserConfig{.momentum = 0.8, .nesterov = true}, OptimiserConfig{.momentum = 0.9, .weight_decay = 0.1},
      OptimiserConfig{.momentum = 0.5, .nesterov = true, .weight_decay = 0.2}, OptimiserConfig{.kind = "adam"},
      OptimiserConfig{.kind = "adam", .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.3},
      OptimiserConfig{.kind = "adamw"}, OptimiserConfig{.kind = "adamw", .beta2 = 0.9, .weight_decay = 0.3});
  CAPTURE(config.kind, config.momentum, config.nesterov, config.weight_decay);
  const std::vector<double> end = by_optimiser(config), expected = by_hand(config);
  const std::vector<double> single = by_optimiser(config, DType::float32);
  for (size_t i = 0; i < end.size(); i++) {
    CHECK(end[i] == Approx(expected[i]).epsilon(1e-12).margin(1e-13));
    CHECK(single[i] == Approx(expected[i]).epsilon(1e-4).margin(1e-5));
  }
}

TEST_CASE("an optimiser continues from its saved state to the same bits") {
  const std::string kind = GENERATE(as<std::string>{}, "sgd", "adam", "adamw");
  const OptimiserConfig config{.kind = kind, .weight_decay = 0.01};
  const Random random(2);
  const auto run = [&](Tensor& theta, Optimiser& optimiser, int from, int to) {
    for (int s = from; s < to; s++)
      optimiser.step({random.stream(static_cast<uint64_t>(s)).normal_tensor(theta.shape())}, 0.1);
  };
  Tensor whole = random.normal_tensor({40}), first = whole.clone();
  Optimiser straight(config, {whole}), early(config, {first});
  run(whole, straight, 0, 9);
  run(first, early, 0, 4);
  std::vector<Tensor> state;
  for (const Tensor& t : early.state()) state.push_back(t.clone());
  CHECK(state.size() == (kind == "sgd" ? 1U : 2U));
  Tensor second = first.clone();
  Optimiser late(config, {second});
  late.restore(state, early.steps());
  run(second, late, 4, 9);
  CHECK(second.to_vector<float>() == whole.to_vector<float>());
  CHECK(late.steps() == 9);
  CHECK_THROWS_WITH(late.restore({}, 3), Contains("0 tensors"));
  CHECK_THROWS_AS(late.restore(std::vector<Tensor>(state.size(), Tensor::zeros({3})), 3), Error);
}

TEST_CASE("optimisers refuse what cannot be meant") {
  const auto make = [](const OptimiserConfig& config) { return Optimiser(config, {Tensor::zeros({2})}); };
  CHECK_THROWS_AS(make({.kind = "lbfgs"}), UsageError);
  CHECK_THROWS_WITH(make({.kind = "lbfgs"}), Contains("sgd, adam or adamw, got 'lbfgs'"));
  CHECK_THROWS_WITH(make({.momentum = 1}), Contains("[0, 1), got 1"));
  CHECK_THROWS_WITH(make({.momentum = 0, .nesterov = true}), Contains("needs momentum"));
  CHECK_THROWS_WITH(make({.weight_decay = -1}), Contains("got -1"));
  Optimiser optimiser = make({});
  CHECK_THROWS_WITH(optimiser.step({}, 0.1), Contains("0 gradients for 1"));
  CHECK_THROWS_AS(optimiser.step({Tensor::zeros({3})}, 0.1), Error);
}
