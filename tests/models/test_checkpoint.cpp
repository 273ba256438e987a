#include "models/checkpoint.h"

#include <catch2/catch.hpp>
#include <limits>

#include "engine/safetensors.h"
#include "models/head.h"
#include "models/peft.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Contains;

namespace {

Model small() {
  return make_model({.architecture = "resnet20",
                     .classes = 3,
                     .channels = 1,
                     .image_height = 28,
                     .image_width = 28,
                     .options = {{"width", "2"}}},
                    1);
}

std::vector<double> values(const Model& model) { return gather(*model, choose(*model, "all")).to_vector<double>(); }

SafeTensors contents(const Model& model) { return {model.config.to_map(), state(*model)}; }

}  // namespace

TEST_CASE("a model comes back from its file as it was, with its configuration") {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  const Model model = small();
  for (const DType dtype : {DType::float32, DType::float64}) {
    model->to(dtype);
    for (const auto& [name, b] : model->named_buffers()) b->value.fill(3);
    save_model(path, model, {{"trained_by", "someone"}, {"model.option.gone", "1"}});
    const Checkpoint loaded = load_model(path);
    CHECK(loaded.model.config.str() == model.config.str());
    CHECK(loaded.metadata.at("trained_by") == "someone");
    CHECK(loaded.model->dtype() == dtype);
    CHECK(values(loaded.model) == values(model));
    for (const auto& [name, b] : loaded.model->named_buffers())
      CHECK(b->value.to(DType::float64).to_vector<double>()[0] == 3);
  }
  CHECK_THROWS_WITH(load_model(path, "resnet18"), Contains("holds a resnet20, not a resnet18"));
  // What a loaded file said about its model does not outlive a change of the model.
  const Checkpoint loaded = load_model(path);
  save_model(path, replace_head(loaded.model, 5, HeadRule::zero), loaded.metadata);
  CHECK(load_model(path).model.config.classes == 5);
}

TEST_CASE("a model file may hold tensors of other kinds, under names that no model has") {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  const Model model = small();
  save_model(path, model, {}, {{"fastntk.start", Tensor::full({4}, 2, DType::float64)}});
  CHECK(load_model(path).model->dtype() == DType::float32);
  CHECK(SafeTensors::load(path).find("fastntk.start")->to_vector<double>() == std::vector<double>(4, 2));
  CHECK_THROWS_WITH(save_model(path, model, {}, {{"start", Tensor::zeros({4})}}), Contains("'start'"));
}

TEST_CASE("a checkpoint without configuration is read with the name of its architecture") {
  const TemporaryFolder folder;
  const std::string path = folder / "foreign.safetensors";
  const Model model = make_model(
      {.architecture = "resnet18", .classes = 4, .channels = 2, .options = {{"width", "2"}, {"stem", "cifar"}}}, 1);
  SafeTensors foreign{{{"format", "pt"}}, state(*model)};
  std::erase_if(foreign.tensors, [](const auto& t) { return t.first.ends_with("num_batches_tracked"); });
  foreign.save(path);
  const Checkpoint loaded = load_model(path, "resnet18");
  CHECK(loaded.model.config.str() == model.config.str());
  CHECK(values(loaded.model) == values(model));
  CHECK_THROWS_WITH(load_model(path),
                    Contains("no configuration") && Contains("name its architecture (fits: resnet18)"));
  CHECK_THROWS_WITH(load_model(path, "resnet34"),
                    Contains("missing layer1.2.conv1.weight") && Contains("more") && !Contains("\n"));

  std::erase_if(foreign.tensors, [](const auto& t) { return t.first.starts_with("fc.") || t.first == "bn1.bias"; });
  foreign.save(path);
  CHECK_THROWS_WITH(load_model(path, "resnet18"),
                    Contains(path + ": not a checkpoint of resnet18: it has no fc.weight") &&
                        Contains("(missing bn1.bias, fc.weight, fc.bias)"));

  const Model a = build_model({.architecture = "resnet20", .options = {{"shortcut", "A"}}});
  NamedShapes shapes;
  for (const auto& [name, tensor] : state(*a)) shapes[name] = tensor.shape();
  CHECK(infer_config("resnet20", shapes).options == a.config.options);
  shapes.erase("fc.weight");
  CHECK_THROWS_WITH(infer_config("resnet20", shapes),
                    Contains("not a checkpoint of resnet20") && Contains("fc.weight"));
}

namespace {

// The same tensors under other names.
template <class Rename>
SafeTensors renamed(const Model& model, Rename&& rename) {
  SafeTensors file{{}, state(*model)};
  for (auto& [name, tensor] : file.tensors) name = rename(name);
  return file;
}

}  // namespace

TEST_CASE("what wrappers put before all names is taken away, and timm's names of a VGG are known") {
  const TemporaryFolder folder;
  const std::string path = folder / "foreign.safetensors";
  const Model model = make_model({.architecture = "convnet", .classes = 4, .options = {{"width", "2"}}}, 1);
  for (const std::string prefix : {"module.", "_orig_mod.", "model.", "model.module._orig_mod."}) {
    renamed(model, [&](const std::string& name) { return prefix + name; }).save(path);
    CHECK(values(load_model(path, "convnet").model) == values(model));
  }
  // Not where one name is without it.
  renamed(model, [](const std::string& name) { return name == "fc.bias" ? name : "module." + name; }).save(path);
  CHECK_THROWS_WITH(load_model(path, "convnet"), Contains("conv1.weight"));
  CHECK_THROWS_WITH(names_of({"pre_logits.fc1.weight", "classifier.0.weight"}, "vgg11_bn"),
                    Contains("both classifier.0.weight and pre_logits.fc1.weight") ||
                        Contains("both pre_logits.fc1.weight and classifier.0.weight"));

  const Model vgg =
      make_model({.architecture = "vgg11_bn", .classes = 3, .options = {{"width", "1"}, {"hidden", "6"}}}, 1);
  SafeTensors timm = renamed(vgg, [](std::string name) {
    for (const auto& [ours, theirs] : {std::pair<std::string, std::string>{"classifier.0", "pre_logits.fc1"},
                                       {"classifier.3", "pre_logits.fc2"},
                                       {"classifier.6", "head.fc"}})
      if (name.starts_with(ours)) name.replace(0, ours.size(), theirs);
    return name;
  });
  for (auto& [name, tensor] : timm.tensors) {
    if (name == "pre_logits.fc1.weight") tensor = tensor.reshape({6, 8, 7, 7});
    if (name == "pre_logits.fc2.weight") tensor = tensor.reshape({6, 6, 1, 1});
  }
  timm.save(path);
  CHECK(values(load_model(path, "vgg11_bn").model) == values(vgg));
}

TEST_CASE("the architectures that a checkpoint fits are found by names and shapes") {
  const auto shapes_of = [](const Model& model) {
    NamedShapes shapes;
    for (const auto& [name, tensor] : state(*model)) shapes[name] = tensor.shape();
    return shapes;
  };
  const auto first = [](const NamedShapes& shapes) {
    const auto fits = fitting_architectures(shapes);
    std::string text;
    for (const Fit& fit : fits)
      if (!fit.differences) text += fit.config.architecture + " ";
    return text;
  };
  const ShapesOnly without_elements;
  for (const std::string& name : architecture_names()) {
    if (!find_architecture(name).infer || name == "small_net") continue;
    ModelConfig config{.architecture = name, .classes = 7};
    // Vision transformers have a size of their own; `vit` has one that patches of 16 fit.
    if (!name.starts_with("vit_")) config.image_height = config.image_width = name == "vit" ? 32 : 28;
    CAPTURE(name);
    CHECK_THAT(" " + first(shapes_of(build_model(config))), Contains(" " + name + " "));
  }
  NamedShapes shapes = shapes_of(build_model({.architecture = "resnet50"}));
  shapes.erase("layer3.2.bn1.bias");
  const auto fits = fitting_architectures(shapes);
  REQUIRE(!fits.empty());
  CHECK(fits.front().config.architecture == "resnet50");
  CHECK(fits.front().text == "missing layer3.2.bn1.bias");
  CHECK(fitting_architectures({}).empty());
}

TEST_CASE("a file that does not fit is refused in one sentence, and changes nothing") {
  const Model model = small();
  const std::vector<double> before = values(model);
  const auto refused = [&](const SafeTensors& file, const auto& matcher) {
    CHECK_THROWS_WITH(load_state(*model, file.tensors, "the file"), Contains("the file") && matcher && !Contains("\n"));
    CHECK(values(model) == before);
  };
  SafeTensors file = contents(make_model(model.config, 2));
  file.tensors[0].second = Tensor::zeros({2, 1, 5, 5});
  file.tensors[1].first = "bn0.weight";
  refused(file, Contains("missing bn1.weight") && Contains("unexpected bn0.weight") &&
                    Contains("misshaped conv1.weight [2, 1, 5, 5] instead of [2, 1, 3, 3]"));

  file = contents(make_model(model.config, 2));
  Tensor& weight = file.tensors[3].second;
  weight = weight.clone();
  weight.mutable_data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  refused(file, Contains("layer1.0.conv1.weight has a NaN") && Contains("element 5"));

  file = contents(make_model(model.config, 2));
  load_state(*model, file.tensors, "the file");
  CHECK(values(model) != before);
}
