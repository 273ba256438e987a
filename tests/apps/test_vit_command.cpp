// A vision transformer through the fastntk program: parameters are added, tuned, forgotten, and come back from files.
#include "apps/command.h"
#include "engine/file.h"
#include "temporary_folder.h"

using namespace fastntk::test;

namespace {

const std::string pretrained = std::string(FASTNTK_SOURCE_DIR) + "/checkpoints/vit-mini-fashion-mnist-0-8.safetensors";

}  // namespace

TEST_CASE("a vision transformer is fine-tuned through added parameters, and forgets") {
  const TemporaryFolder folder;
  const std::string tuned = folder / "tuned.safetensors", forgot = folder / "forgot.safetensors";
  const std::string tiny = " --samples '30000-59999 per-class:3' --epochs 1 --quiet ";
  for (const std::string subset : {"prompt+head", "lora:2+head"}) {
    Result r = run("finetune " + pretrained + " -o " + tuned + tiny + "--subset " + subset);
    INFO(r.output);
    REQUIRE(r.code == 0);
    CHECK_THAT(r.output, Catch::Contains(subset + ": ") && Catch::Contains(", P = "));
    r = run("unlearn " + tuned + " --forget class:9 --test-samples first:20 --quiet -o " + forgot);
    INFO(r.output);
    REQUIRE(r.code == 0);
    r = run("evaluate " + forgot + " --samples first:20 --quiet");
    INFO(r.output);
    REQUIRE(r.code == 0);
    CHECK_THAT(r.output, Catch::Contains("20 samples: accuracy"));
  }
  const Result again = run("finetune " + tuned + " -o " + forgot + tiny + "--subset lora:3+head --head keep");
  CHECK(again.code == 2);
  CHECK_THAT(again.output, Catch::Contains("'lora:3' for a model that has lora:2 already"));
  const Result none = run("jacobian " + pretrained + " --subset lora -o " + forgot + " --samples first:2");
  CHECK(none.code == 2);
  CHECK_THAT(none.output, Catch::Contains("'lora' of a model that has none"));
}
