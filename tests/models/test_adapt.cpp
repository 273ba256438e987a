// What is added to a model for fine-tuning: its start, its subsets, its files.
#include "models/adapt.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "models/checkpoint.h"
#include "models/head.h"
#include "models/pass.h"
#include "models/small_vit.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Contains;

namespace {

std::vector<double> logits(const Model& model) {
  return model->forward(Pass(), small_images(2)).value.to_vector<double>();
}

int64_t parameters(const Model& model, const std::string& subset) { return choose(*model, subset).size(); }

}  // namespace

TEST_CASE("what is added leaves the model as it was, but for prompts") {
  const Model model = small_vit();
  for (const char* const added : {"lora:3", "adapter:5", "prompt-frame:1", "head"}) {
    CAPTURE(added);
    CHECK(logits(adapt(model, added, 1)) == logits(model));
  }
  const Model prompted = adapt(model, "prompt:4", 1);
  CHECK(logits(prompted) != logits(model));
  CHECK(logits(adapt(model, "prompt:4", 1)) == logits(prompted));
  CHECK(logits(adapt(model, "prompt:4", 2)) != logits(prompted));
  // VPT's bound, √(6 / (3 · 4² + 8)).
  double largest = 0;
  for (const auto& [name, p] : prompted->named_parameters())
    if (name == "prompt.0")
      for (const double v : p->value.to_vector<double>()) largest = std::max(largest, std::abs(v));
  CHECK(largest < std::sqrt(6.0 / 56));
  CHECK(largest > 0.8 * std::sqrt(6.0 / 56));
}

TEST_CASE("subsets of a vision transformer have their counts") {
  const Model model = small_vit();  // width 8, 2 blocks, MLP 16, 4 classes
  CHECK(parameters(model, "head") == 4 * 8 + 4);
  CHECK(parameters(model, "ln") == (2 * 2 + 1) * 2 * 8);
  CHECK(parameters(model, "bitfit") == parameters(model, "bias"));
  CHECK(parameters(model, "bitfit") == 8 + 2 * (8 + 24 + 8 + 8 + 16 + 8) + 8 + 4);
  const auto added = [&](const std::string& subset) { return parameters(adapt(model, subset, 1), subset); };
  CHECK(added("prompt") == 10 * 8);
  CHECK(added("prompt:3+head") == 3 * 8 + 36);
  CHECK(added("prompt-deep:3") == 2 * 3 * 8);
  CHECK(added("prompt-frame:2") == 3 * (12 * 8 - 8 * 4));
  CHECK(added("lora:4") == 2 * (4 * 8 + 24 * 4 + 4 * 8 + 8 * 4));
  CHECK(added("lora:4+head") == 2 * 192 + 36);
  CHECK(added("adapter:3") == 2 * (2 * 8 * 3 + 3 + 8));
  CHECK(added("prompt:2+lora:1+adapter:1+ln+head") == 16 + 96 + 50 + 80 + 36);
  CHECK_THAT(choose(*adapt(model, "lora:4", 1), "lora:4").table(),
             Contains("blocks.1.attn.proj.lora_B") && Contains("lora:4: 8 parameter tensors, P = 384"));
}

TEST_CASE("an adapted model comes back from its file, with another head, and as a copy") {
  const TemporaryFolder folder;
  const Model model = adapt(small_vit(), "prompt-deep:2+lora:2+adapter:3+prompt-frame:1", 4);
  const std::string path = folder / "adapted.safetensors";
  save_model(path, model);
  const Checkpoint loaded = load_model(path);
  CHECK(loaded.model.config.str() == model.config.str());
  CHECK(logits(loaded.model) == logits(model));
  // The logits do not depend on all of them at the start.
  CHECK(parameters(loaded.model, "all") == parameters(model, "all"));
  CHECK(parameters(model.clone(), "all") == parameters(model, "all"));
  CHECK(logits(model.clone()) == logits(model));
  CHECK(parameters(replace_head(model, 7, HeadRule::zero), "lora:2+adapter:3") ==
        parameters(model, "lora:2+adapter:3"));
  // Nothing is added twice.
  CHECK(parameters(adapt(loaded.model, "lora:2+prompt-deep+head", 9), "all") == parameters(model, "all"));
}

TEST_CASE("what cannot be added or chosen is refused") {
  const Model model = small_vit();
  CHECK_THROWS_WITH(choose(*model, "lora:4"), Contains("'lora:4' of a model that has none"));
  CHECK_THROWS_WITH(choose(*adapt(model, "lora:2", 1), "lora:4"), Contains("'lora:4' of a model that has lora:2"));
  CHECK_THROWS_WITH(choose(*adapt(model, "prompt", 1), "prompt-deep"),
                    Contains("'prompt-deep' of a model that has none"));
  CHECK_THROWS_WITH(adapt(adapt(model, "lora:2", 1), "lora:4", 1), Contains("has lora:2 already"));
  CHECK_THROWS_WITH(adapt(adapt(model, "prompt", 1), "prompt-deep", 1), Contains("has prompts already"));
  CHECK_THROWS_WITH(adapt(model, "lora:0", 1), Contains("positive number"));
  CHECK_THROWS_WITH(adapt(model, "lora:x", 1), Contains("positive number"));
  CHECK_THROWS_WITH(adapt(model, "head:3", 1), Contains("'head:3' is no part of a parameter subset"));
  const Model resnet = make_model({.architecture = "resnet20", .channels = 1, .options = {{"width", "2"}}}, 1);
  for (const char* const part : {"prompt", "prompt-deep", "prompt-frame", "lora", "adapter"}) {
    CHECK_THROWS_AS(adapt(resnet, part, 1), UsageError);
    CHECK_THROWS_WITH(adapt(resnet, part, 1), Contains("resnet20 takes no"));
  }
  CHECK(parameters(adapt(resnet, "bn+head", 1), "bn") == parameters(resnet, "bn"));
}
