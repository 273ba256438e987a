#include "models/peft.h"

#include <catch2/catch.hpp>

#include "models/registry.h"

using namespace fastntk;
using Catch::Contains;

namespace {

Model small() {
  return make_model({.architecture = "resnet20", .classes = 3, .channels = 1, .options = {{"width", "2"}}}, 1);
}

std::vector<std::string> names(const Model& model, const std::string& specification) {
  std::vector<std::string> all;
  for (const auto& e : choose(*model, specification).entries) all.push_back(e.name);
  return all;
}

}  // namespace

TEST_CASE("a subset is chosen by name, by pattern and by union, in the order of the model") {
  const Model model = small();
  using List = std::vector<std::string>;
  CHECK(names(model, "head") == List{"fc.weight", "fc.bias"});
  CHECK(names(model, "fc.*, conv1.weight") == List{"conv1.weight", "fc.weight", "fc.bias"});
  CHECK(names(model, "layer?.0.downsample.1.bias") == List{"layer2.0.downsample.1.bias", "layer3.0.downsample.1.bias"});
  CHECK(names(model, "*downsample*weight") == List{"layer2.0.downsample.0.weight", "layer2.0.downsample.1.weight",
                                                   "layer3.0.downsample.0.weight", "layer3.0.downsample.1.weight"});
  CHECK(names(model, "all").size() == model->named_parameters().size());
  CHECK(names(model, "*") == names(model, "all"));
  CHECK(names(model, "head+bn") == names(model, "bn+head"));
  CHECK(names(model, "bn+bn1.*") == names(model, "bn"));
  CHECK(names(model, "bn").size() == 2 * 21);
  CHECK(names(model, "bias").size() == 22);

  const Subset subset = choose(*model, "bn+head");
  int64_t offset = 0;
  for (const auto& e : subset.entries) {
    CHECK(e.offset == offset);
    offset += e.shape.elements();
  }
  CHECK(subset.size() == offset);
  CHECK(choose(*model, "all").size() == model->parameter_elements());
  CHECK_THAT(subset.table(), Contains("layer3.0.downsample.1.bias") &&
                                 Contains("bn+head: 44 parameter tensors, P = " + std::to_string(offset)));
}

TEST_CASE("a subset that chooses nothing is refused, and the error says what there is") {
  const Model model = small();
  CHECK_THROWS_AS(choose(*model, "layer9.*"), UsageError);
  CHECK_THROWS_WITH(choose(*model, "bn+layer9.*"), Contains("'layer9.*'") &&
                                                       Contains("bn, ln, head, bias, bitfit and all") &&
                                                       Contains("conv1.* (1), bn1.* (2), layer1.* (18)"));
  CHECK_THROWS_WITH(choose(*model, ""), Contains("empty part"));
  CHECK_THROWS_WITH(choose(*model, "bn++head"), Contains("empty part"));
}

TEST_CASE("gather and scatter are inverse, and theta has the order of the table") {
  const Model model = small();
  model->to(DType::float64);
  const Subset subset = choose(*model, "bn+head");
  const Tensor before = gather(*model, subset);
  CHECK(before.dtype() == DType::float64);
  CHECK(before.shape() == Shape{subset.size()});
  CHECK(before.to_vector<double>()[0] == 1);  // the first batch norm's weight

  std::vector<double> values(static_cast<size_t>(subset.size()));
  for (size_t i = 0; i < values.size(); i++) values[i] = 0.1 * static_cast<double>(i);
  scatter(*model, subset, Tensor::from<double>({subset.size()}, values));
  CHECK(gather(*model, subset).to_vector<double>() == values);
  const auto& last = subset.entries.back();
  CHECK(last.name == "fc.bias");
  CHECK(model->named_parameters()[last.index].second->value.to_vector<double>()[1] ==
        values[static_cast<size_t>(last.offset) + 1]);

  model->to(DType::float32);
  scatter(*model, subset, before);
  CHECK(model->dtype() == DType::float32);
  CHECK(gather(*model, choose(*model, "bn")).to_vector<double>()[0] == 1);

  CHECK_THROWS_WITH(scatter(*model, subset, Tensor::zeros({3}, DType::float64)), Contains("P = "));
  const Model other =
      build_model({.architecture = "resnet20", .classes = 4, .channels = 1, .options = {{"width", "2"}}});
  CHECK_THROWS_WITH(gather(*other, subset), Contains("another model") && Contains("fc.weight [3, 8]"));
}
