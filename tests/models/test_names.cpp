// Names, order, shapes and counts are those of torchvision and timm.
#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "engine/sha256.h"
#include "models/peft.h"
#include "models/registry.h"

using namespace fastntk;

namespace {

// What follows PREFIX and a space on the lines of the list that torch_names.py made.
std::vector<std::string> listed(const std::string& prefix) {
  std::ifstream file(FASTNTK_SOURCE_DIR "/tests/golden/torch_names.txt");
  REQUIRE(file.good());
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(prefix + " ")) lines.push_back(line.substr(prefix.size() + 1));
  return lines;
}

std::string line(const char* kind, const std::string& name, const Shape& shape) {
  std::string text = kind + (" " + name);
  for (const int64_t extent : shape) text += " " + std::to_string(extent);
  return text;
}

// "parameter conv1.weight 64 3 7 7" for every parameter, then every buffer.
std::vector<std::string> lines_of(const Model& model) {
  std::vector<std::string> lines;
  for (const auto& [key, p] : model->named_parameters()) lines.push_back(line("parameter", key, p->value.shape()));
  for (const auto& [key, b] : model->named_buffers()) lines.push_back(line("buffer", key, b->value.shape()));
  return lines;
}

int64_t count(const ModelConfig& config, const std::string& subset) {
  return choose(*build_model(config).module, subset).size();
}

}  // namespace

TEST_CASE("names, order and shapes of the ImageNet ResNets are torchvision's") {
  for (const char* name : {"resnet18", "resnet34", "resnet50", "resnet101"}) {
    CAPTURE(name);
    const auto ours = lines_of(build_model({.architecture = name, .classes = 1000}));
    const auto theirs = listed(name);
    REQUIRE(!theirs.empty());
    CHECK(ours == theirs);
  }
}

TEST_CASE("names, order and shapes of the other networks are those of torchvision and timm") {
  int compared = 0;
  for (const char* source : {"torchvision", "timm"})
    for (const std::string& entry : listed("digest " + std::string(source))) {
      const std::string name = entry.substr(0, entry.find(' '));
      CAPTURE(source, name);
      Sha256 digest;
      for (const std::string& text : lines_of(build_model({.architecture = name, .classes = 1000})))
        digest.add(text).add("\n");
      CHECK(digest.hex() == entry.substr(name.size() + 1));
      compared++;
    }
  CHECK(compared == 25);
}

TEST_CASE("the subsets have the counts of the literature") {
  const ModelConfig resnet20{.architecture = "resnet20", .classes = 10, .channels = 1};
  CHECK(count(resnet20, "bn") == 1568);
  CHECK(count(resnet20, "bn+head") == 2218);
  CHECK(count(resnet20, "head") == 650);
  CHECK(count({.architecture = "resnet18"}, "bn") == 9600);
  CHECK(count({.architecture = "resnet18", .options = {{"stem", "cifar"}}}, "bn") == 9600);
  // He et al., table 6, with shortcuts A: 0.27 M, 0.46 M, 0.66 M, 0.85 M.
  const auto millions = [](const char* name) {
    return static_cast<double>(count({.architecture = name, .options = {{"shortcut", "A"}}}, "all")) / 1e6;
  };
  CHECK(millions("resnet20") == Approx(0.27).margin(0.005));
  CHECK(millions("resnet32") == Approx(0.46).margin(0.006));
  CHECK(millions("resnet44") == Approx(0.66).margin(0.005));
  CHECK(millions("resnet56") == Approx(0.85).margin(0.006));
}
