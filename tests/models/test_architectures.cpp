// Every registered architecture at a small size: it runs, and its Jacobian in all parameters is the transpose of its
// derivative, record by record.
#include <catch2/catch.hpp>

#include "engine/record_checks.h"
#include "models/checkpoint.h"
#include "models/pass.h"

using namespace fastntk;
using Catch::Contains;

namespace {

const std::vector<std::string> none;

// The architecture with few channels, and an image that it takes.
std::pair<Model, Tensor> small(const std::string& name) {
  ModelConfig config{.architecture = name, .classes = 3, .channels = 2, .image_height = 28, .image_width = 28};
  const bool grouped = name.starts_with("resnext"), vgg = name.starts_with("vgg");
  if (find_architecture(name).options.count("width")) config.options["width"] = grouped ? "16" : "2";
  if (vgg) config.options["hidden"] = "5";
  if (name == "mlp") config.options["hidden"] = "6,4";
  Model model = make_model(config, 1);
  model->to(DType::float64);
  const int64_t side = vgg ? 32 : 28;
  return {std::move(model), Random(3).normal_tensor({2, side, side, 2}, DType::float64)};
}

NamedShapes shapes_of(const Model& model) {
  NamedShapes shapes;
  for (const auto& [name, tensor] : state(*model)) shapes[name] = tensor.shape();
  return shapes;
}

}  // namespace

TEST_CASE("the dot test holds on every record of the convolutional networks") {
  for (const char* name :
       {"resnext50_32x4d", "wide_resnet50_2", "resnetv2_18", "resnetv2_50", "vgg11_bn", "mlp", "lenet5", "convnet"}) {
    CAPTURE(name);
    const auto [model, x] = small(name);
    Tape tape;
    const Subset all = choose(*model, "all");
    const Pass pass = Pass::per_sample(*model, all, tape, 2);
    const Variable logits = model->forward(pass, x);
    CHECK(logits.shape() == Shape{2, 3});
    CHECK(tape.records().size() >= all.entries.size() / 2);
    CHECK(test::failed_dot_tests(tape, 1e-12) == none);
    CHECK(choose(*model, "head").size() > 0);

    // In train mode, once more with shared parameters.
    Tape training;
    Pass shared = Pass::shared(*model, all, training, Mode::train);
    shared.draw_from(*model, Random(4));
    model->forward(shared, x);
    CHECK(training.records().size() >= all.entries.size() / 2);
    CHECK(test::failed_dot_tests(training, 1e-12) == none);
  }
}

TEST_CASE("the configuration of every network can be read from the shapes of its parameters") {
  for (const std::string& name : architecture_names()) {
    if (!find_architecture(name).infer) continue;
    ModelConfig config{.architecture = name, .classes = 7, .channels = 1};
    // Vision transformers have a size of their own; `vit` has one that patches of 16 fit.
    if (!name.starts_with("vit_")) config.image_height = config.image_width = name == "vit" ? 32 : 28;
    if (find_architecture(name).options.count("hidden") && name != "mlp") config.options["hidden"] = "8";
    const Model model = build_model(config);
    const NamedShapes shapes = shapes_of(model);
    const ModelConfig inferred = infer_config(name, shapes);
    CAPTURE(name, inferred.str());
    CHECK(inferred.classes == 7);
    CHECK(inferred.channels == 1);
    CHECK(shapes_of(build_model(inferred)) == shapes);
  }
}

TEST_CASE("networks refuse images and settings that they cannot have") {
  const auto build = [](const std::string& name, int64_t side, std::map<std::string, std::string> options = {}) {
    return build_model({.architecture = name,
                        .classes = 2,
                        .channels = 1,
                        .image_height = side,
                        .image_width = side,
                        .options = std::move(options)});
  };
  CHECK_THROWS_WITH(build("lenet5", 24), Contains("28x28 or 32x32") && Contains("24x24"));
  CHECK_THROWS_WITH(build("mlp", 0), Contains("size of its images"));
  CHECK_THROWS_WITH(build("mlp", 4, {{"hidden", "8,,8"}}), Contains("hidden") && Contains("''"));
  CHECK_THROWS_WITH(build("resnext50_32x4d", 28, {{"width", "10"}}), Contains("no multiple of 64"));
  const auto forward = [](const Model& model, const Shape& images) {
    return model->forward(Pass(), Tensor::zeros(images));
  };
  CHECK_THROWS_WITH(forward(build("lenet5", 28), {1, 32, 32, 1}), Contains("28x28") && Contains("[1, 32, 32, 1]"));
  CHECK_THROWS_WITH(forward(build("mlp", 4), {1, 5, 4, 1}), Contains("16 numbers"));
  CHECK_THROWS_WITH(forward(build("vgg11_bn", 0, {{"width", "1"}, {"hidden", "1"}}), {1, 32, 32, 3}),
                    Contains("[N, H, W, 1]"));
  CHECK_THROWS_WITH(forward(build("resnetv2_18", 0, {{"width", "1"}}), {1, 32, 32, 3}), Contains("[N, H, W, 1]"));
}
