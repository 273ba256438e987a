// The norm modules: names as torch's, and what they do to a batch.
#include "models/norms.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/random.h"

namespace fastntk {
namespace {

std::vector<std::string> names(const Module& m) {
  std::vector<std::string> out;
  for (const auto& [name, p] : m.named_parameters()) out.push_back(name);
  return out;
}

// Mean and mean square of the elements of `row`.
std::pair<double, double> moments(const Tensor& row) {
  double sum = 0, squares = 0;
  for (const float v : row.to_vector<float>()) sum += v, squares += static_cast<double>(v) * v;
  const auto n = static_cast<double>(row.elements());
  return {sum / n, squares / n};
}

TEST_CASE("norms have torch's parameter names and start as plain normalisation", "[norms]") {
  const Tensor x = Random(1).normal_tensor({2, 3, 4, 6});
  const LayerNorm layer(6);
  const GroupNorm group(2, 6);
  const RmsNorm rms(6);
  const InstanceNorm2d instance(6), affine(6, true);
  CHECK(names(layer) == std::vector<std::string>{"weight", "bias"});
  CHECK(names(group) == std::vector<std::string>{"weight", "bias"});
  CHECK(names(rms) == std::vector<std::string>{"weight"});
  CHECK(names(instance).empty());
  CHECK(names(affine) == std::vector<std::string>{"weight", "bias"});

  LayerNorm initialised(6);
  initialised.initialise(1);
  const Tensor y = initialised.forward(Pass(), x).value;
  const auto [mean, square] = moments(y.slice(0, 1, 2).slice(1, 2, 3).slice(2, 3, 4));
  CHECK(mean == Approx(0).margin(1e-6));
  CHECK(square == Approx(1).epsilon(1e-3));

  GroupNorm groups(2, 6);
  groups.initialise(1);
  const auto [group_mean, group_square] = moments(groups.forward(Pass(), x).value.slice(0, 1, 2).slice(3, 3, 6));
  CHECK(group_mean == Approx(0).margin(1e-6));
  CHECK(group_square == Approx(1).epsilon(1e-3));

  const auto [channel_mean, channel_square] = moments(instance.forward(Pass(), x).value.slice(0, 1, 2).slice(3, 5, 6));
  CHECK(channel_mean == Approx(0).margin(1e-6));
  CHECK(channel_square == Approx(1).epsilon(1e-3));

  RmsNorm root(6);
  root.initialise(1);
  CHECK(moments(root.forward(Pass(), x).value.slice(0, 0, 1).slice(1, 0, 1).slice(2, 0, 1)).second ==
        Approx(1).epsilon(1e-3));
}

TEST_CASE("norms refuse channels that do not fit", "[norms]") {
  CHECK_THROWS_WITH(GroupNorm(4, 6), Catch::Contains("6 channels in 4 equal groups"));
  CHECK_THROWS_WITH(InstanceNorm2d(5).forward(Pass(), Tensor::zeros({2, 3, 3, 6})), Catch::Contains("5 channels"));
  CHECK_THROWS_WITH(LayerNorm(5).forward(Pass(), Tensor::zeros({2, 3, 6})), Catch::Contains("gamma"));
}

}  // namespace
}  // namespace fastntk
