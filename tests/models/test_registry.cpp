#include "models/registry.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/ops/elementwise.h"
#include "models/head.h"
#include "models/layers.h"

using namespace fastntk;
using Catch::Contains;

namespace {

// What a user's own code would hold: a module, and its architecture under a name.
class SmallNet final : public Module {
 public:
  explicit SmallNet(const ModelConfig& config) {
    const int64_t width = config.positive_option("width");
    Sequential& f = add_child("features", std::make_unique<Sequential>());
    f.append(std::make_unique<Conv2d>(config.channels, width, 3, Conv2dOptions{.padding = {1, 1}}, true));
    f.append(std::make_unique<BatchNorm2d>(width));
    f.append(std::make_unique<Relu>());
    f.append(std::make_unique<MaxPool2d>(Pool2dOptions{}));
    f.append(std::make_unique<GlobalAveragePool>());
    features_ = &f;
    temperature_ = &add_parameter("temperature", {1}, Initial::constant(2));
    classifier_ = &add_child("classifier", std::make_unique<Linear>(width, config.classes));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    return pass.parameter(*temperature_) * classifier_->forward(pass, features_->forward(pass, x));
  }
  std::string head() const override { return "classifier"; }

 private:
  const Sequential* features_;
  const Linear* classifier_;
  const Parameter* temperature_;
};

const Model& small_net() {
  static const Model model = [] {
    register_architecture({.name = "small_net",
                           .description = "one convolution",
                           .options = {{"width", "3"}},
                           .build = [](const ModelConfig& c) { return std::make_unique<SmallNet>(c); },
                           .infer = {}});
    return make_model({.architecture = "small_net", .classes = 2, .channels = 1}, 3);
  }();
  return model;
}

Tensor value(const Model& model, const std::string& name) {
  for (const auto& [key, p] : model->named_parameters())
    if (key == name) return p->value;
  FAIL("no parameter " + name);
  return {};
}

}  // namespace

TEST_CASE("code outside the repository can register an architecture") {
  const Model& model = small_net();
  CHECK(model.config.str() == "small_net, classes 2, channels 1, width 3");
  std::vector<std::string> names;
  for (const auto& [name, p] : model->named_parameters()) names.push_back(name);
  CHECK(names == std::vector<std::string>{"temperature", "features.0.weight", "features.0.bias", "features.1.weight",
                                          "features.1.bias", "classifier.weight", "classifier.bias"});
  CHECK(choose(*model, "bn+head").size() == 6 + 8);

  // Per-sample gradients of the whole model come from the same forward pass.
  Tape tape;
  const Subset all = choose(*model, "all");
  const Pass pass = Pass::per_sample(*model, all, tape, 4);
  const Variable logits = model->forward(pass, Tensor::full({4, 6, 6, 1}, 0.5));
  CHECK(logits.shape() == Shape{4, 2});
  const auto rows = tape.vjp(logits, Tensor::full({4, 2}, 1), pass.leaves());
  for (size_t i = 0; i < rows.size(); i++) CHECK(rows[i].shape() == Shape{4} + all.entries[i].shape);

  CHECK_THROWS_WITH(
      register_architecture({.name = "small_net", .description = "", .options = {}, .build = {}, .infer = {}}),
      Contains("'small_net' is registered already"));
  CHECK_THROWS_WITH(infer_config("small_net", {}), Contains("cannot be read"));
}

TEST_CASE("a configuration survives the way through flat strings") {
  const Model model = build_model({.architecture = "resnet32",
                                   .classes = 7,
                                   .channels = 1,
                                   .image_height = 28,
                                   .image_width = 24,
                                   .options = {{"width", "4"}, {"shortcut", "A"}}});
  CHECK(model.config.str() == "resnet32, classes 7, channels 1, image 28x24, shortcut A, stem cifar, width 4");
  auto entries = model.config.to_map();
  entries["trained_by"] = "someone";
  const auto config = ModelConfig::from_map(entries);
  REQUIRE(config.has_value());
  CHECK(config->str() == model.config.str());
  CHECK(config->to_map() == model.config.to_map());
  CHECK(!ModelConfig::from_map({{"trained_by", "someone"}}).has_value());
  entries["model.classes"] = "7x";
  CHECK_THROWS_WITH(ModelConfig::from_map(entries), Contains("model.classes") && Contains("'7x'"));
  entries.erase("model.classes");
  CHECK_THROWS_WITH(ModelConfig::from_map(entries), Contains("lacks model.classes"));
}

TEST_CASE("requests that cannot be meant are refused with the list of what can") {
  CHECK_THROWS_AS(build_model({.architecture = "resnet21"}), UsageError);
  CHECK_THROWS_WITH(build_model({.architecture = "resnet21"}),
                    Contains("'resnet21'") && Contains("resnet18, resnet20"));
  CHECK_THROWS_WITH(build_model({.architecture = "resnet20", .options = {{"depth", "3"}}}),
                    Contains("'depth'") && Contains("shortcut, stem, width"));
  CHECK_THROWS_WITH(build_model({.architecture = "resnet20", .options = {{"width", "0"}}}),
                    Contains("width") && Contains("'0'"));
  CHECK_THROWS_WITH(build_model({.architecture = "resnet20", .options = {{"shortcut", "C"}}}), Contains("A or B"));
  CHECK_THROWS_WITH(build_model({.architecture = "resnet20", .options = {{"stem", "none"}}}),
                    Contains("imagenet or cifar"));
  CHECK_THROWS_AS(build_model({.architecture = "resnet20", .classes = 0}), UsageError);
}

TEST_CASE("initial values depend on seed, name and index only, and have He's scale") {
  const ModelConfig config{.architecture = "resnet20"};
  const Model a = make_model(config, 1), b = make_model(config, 1), c = make_model(config, 2);
  const Model other = make_model({.architecture = "resnet32", .classes = 3}, 1);
  const auto weights = [](const Model& m, const char* name) { return value(m, name).to_vector<float>(); };
  CHECK(weights(a, "layer2.1.conv1.weight") == weights(b, "layer2.1.conv1.weight"));
  CHECK(weights(a, "layer2.1.conv1.weight") == weights(other, "layer2.1.conv1.weight"));
  CHECK(weights(a, "layer2.1.conv1.weight") != weights(c, "layer2.1.conv1.weight"));
  CHECK(weights(a, "layer2.1.conv1.weight") != weights(a, "layer2.1.conv2.weight"));

  double sum = 0, squares = 0;
  const auto w = weights(a, "layer3.2.conv2.weight");  // 64 · 64 · 9
  for (const float x : w) sum += x, squares += static_cast<double>(x) * x;
  const auto n = static_cast<double>(w.size());
  CHECK(std::abs(sum / n) < 4 * std::sqrt(2.0 / 576 / n));
  CHECK(squares / n == Approx(2.0 / 576).epsilon(0.03));
  for (const float x : weights(a, "fc.weight")) CHECK(std::abs(x) <= 0.125F);
  CHECK(weights(a, "bn1.weight") == std::vector<float>(16, 1));
  CHECK(weights(a, "bn1.bias") == std::vector<float>(16, 0));
}

TEST_CASE("a clone has the same values and a life of its own") {
  const Model model = make_model({.architecture = "resnet20", .options = {{"width", "2"}}}, 5);
  model->to(DType::float64);
  const Model copy = model.clone();
  CHECK(copy->dtype() == DType::float64);
  const Subset all = choose(*model, "all");
  CHECK(gather(*copy, all).to_vector<double>() == gather(*model, all).to_vector<double>());
  scatter(*copy, all, Tensor::zeros({all.size()}, DType::float64));
  CHECK(gather(*copy, all).to_vector<double>() != gather(*model, all).to_vector<double>());
}

TEST_CASE("a model gets a head for another number of classes") {
  const Model model = make_model({.architecture = "resnet20", .classes = 3, .options = {{"width", "2"}}}, 5);
  const auto rows = [](const Model& m) { return value(m, "fc.weight").to_vector<float>(); };
  const auto old = rows(model);  // [3, 8]
  const auto norm = [](const std::vector<float>& v, size_t row) {
    double sum = 0;
    for (size_t i = 8 * row; i < 8 * row + 8; i++) sum += static_cast<double>(v[i]) * v[i];
    return std::sqrt(sum);
  };

  const Model zero = replace_head(model, 5, HeadRule::zero);
  CHECK(zero.config.classes == 5);
  CHECK(rows(zero) == std::vector<float>(40, 0));
  CHECK(gather(*zero, choose(*zero, "layer*")).to_vector<double>() ==
        gather(*model, choose(*model, "layer*")).to_vector<double>());

  auto kept = old;
  kept.resize(40, 0);
  CHECK(rows(replace_head(model, 5, HeadRule::keep_and_zero)) == kept);

  const Model random = replace_head(model, 5, HeadRule::keep_and_random, 1);
  const auto drawn = rows(random);
  CHECK(std::vector<float>(drawn.begin(), drawn.begin() + 24) == old);
  const double mean = (norm(old, 0) + norm(old, 1) + norm(old, 2)) / 3;
  CHECK(norm(drawn, 3) == Approx(mean));
  CHECK(norm(drawn, 4) == Approx(mean));
  CHECK(rows(replace_head(model, 5, HeadRule::keep_and_random, 1)) == drawn);
  CHECK(rows(replace_head(model, 5, HeadRule::keep_and_random, 2)) != drawn);
  const auto bias = value(random, "fc.bias").to_vector<float>(), old_bias = value(model, "fc.bias").to_vector<float>();
  CHECK(bias[4] == Approx((old_bias[0] + old_bias[1] + old_bias[2]) / 3));

  CHECK(rows(replace_head(model, 2, HeadRule::keep_and_random)) == std::vector<float>(old.begin(), old.begin() + 16));
  CHECK(head_rule("keep-and-zero") == HeadRule::keep_and_zero);
  CHECK_THROWS_WITH(head_rule("none"), Contains("zero, keep-and-zero, keep-and-random"));
}
