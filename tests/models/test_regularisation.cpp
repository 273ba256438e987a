// Dropout, stochastic depth and layer scale as modules.
#include "models/regularisation.h"

#include <catch2/catch.hpp>

#include "engine/ops/elementwise.h"
#include "engine/random.h"
#include "models/layers.h"

using namespace fastntk;
using Catch::Contains;

namespace {

// Two dropouts one after the other, a scaled branch that may be dropped, and a classifier.
class Branch final : public Module {
 public:
  Branch() {
    auto& layers = add_child("layers", std::make_unique<Sequential>());
    layers.append(std::make_unique<Dropout>(0.5));
    layers.append(std::make_unique<Dropout>(0.5));
    layers_ = &layers;
    scale_ = &add_child("ls", std::make_unique<LayerScale>(6, 0.25));
    path_ = &add_child("drop_path", std::make_unique<DropPath>(0.5));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    return x + path_->forward(pass, scale_->forward(pass, layers_->forward(pass, x)));
  }

 private:
  const Module *layers_, *scale_, *path_;
};

std::vector<float> values(const Variable& x) { return x.value.to_vector<float>(); }

}  // namespace

TEST_CASE("random layers are the identity in eval mode, and ask for numbers in train mode") {
  Branch model;
  model.initialise(1);
  const Tensor x = Random(2).normal_tensor({5, 3, 6});
  CHECK(values(model.forward(Pass(Mode::eval), x)) == values(Variable(x) + scale(x, 0.25)));
  CHECK_THROWS_WITH(model.forward(Pass(Mode::train), x), Contains("needs random numbers"));
  CHECK_THROWS_WITH(Dropout(1), Contains("rate must be in [0, 1)"));
  CHECK_THROWS_WITH(DropPath(-0.1), Contains("rate must be in [0, 1)"));
}

TEST_CASE("in train mode every random layer has a stream of its own, and a batch may be split") {
  Branch model;
  model.initialise(1);
  const Tensor x = Tensor::full({64, 8, 6}, 1);
  const auto run = [&](uint64_t seed, const Tensor& inputs, int64_t first_sample) {
    Pass pass(Mode::train);
    pass.draw_from(model, Random(seed), first_sample);
    return values(model.forward(pass, inputs));
  };
  const std::vector<float> all = run(3, x, 0);
  CHECK(run(3, x, 0) == all);
  CHECK(run(4, x, 0) != all);
  std::vector<float> parts = run(3, x.slice(0, 0, 23), 0);
  const std::vector<float> rest = run(3, x.slice(0, 23, 64), 23);
  parts.insert(parts.end(), rest.begin(), rest.end());
  CHECK(parts == all);
  // An element survives both dropouts and the path with probability 1/8, and is then 1 + 0.25 · 8. With equal streams
  // it would be 1/4.
  int survived = 0;
  for (const float v : all) {
    CHECK((v == 1 || v == 3));
    survived += v == 3;
  }
  CHECK(survived > 64 * 48 / 8 / 2);
  CHECK(survived < 64 * 48 * 3 / 16);
}

TEST_CASE("layer scale multiplies channels by gamma, which has a gradient per sample") {
  LayerScale layer(4, 0.1);
  layer.initialise(0);
  CHECK(layer.named_parameters()[0].first == "gamma");
  const Subset subset = choose(layer, "all");
  const Tensor x = Random(2).normal_tensor({3, 2, 4}, DType::float32), u = Random(3).normal_tensor({3, 2, 4});
  CHECK(values(layer.forward(Pass(), x)) == values(Variable(x) * Variable(Tensor::full({4}, 0.1))));
  Tape tape;
  const Pass pass = Pass::per_sample(layer, subset, tape, 3);
  const Tensor g = tape.vjp(layer.forward(pass, x), u, pass.leaves())[0].value;
  REQUIRE(g.shape() == Shape{3, 4});
  const auto gradient = g.to_vector<float>(), a = x.to_vector<float>(), b = u.to_vector<float>();
  for (size_t n = 0; n < 3; n++)
    for (size_t c = 0; c < 4; c++)
      CHECK(gradient[4 * n + c] ==
            Approx(a[8 * n + c] * b[8 * n + c] + a[8 * n + 4 + c] * b[8 * n + 4 + c]).margin(1e-6));
}
