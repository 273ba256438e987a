// prepare, forget and verify as their users run them.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "engine/file.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

const std::string pretrained = std::string(FASTNTK_SOURCE_DIR) + "/checkpoints/resnet20-fashion-mnist-0-8.safetensors";

Result succeeds(const std::string& arguments) {
  const Result r = run(arguments + " --quiet");
  INFO(arguments << "\n" << r.output);
  REQUIRE(r.code == 0);
  return r;
}

}  // namespace

TEST_CASE("prepare, forget and verify", "[forget]") {
  const TemporaryFolder folder;
  const std::string tuned = folder / "tuned.safetensors", state = folder / "state";
  succeeds("finetune " + pretrained + " -o " + tuned + " --samples '30000-59999 per-class:10' --epochs 1 --loss mse");
  CHECK_THAT(succeeds("prepare " + tuned + " -o " + state).output, Catch::Contains("n = 100, P = 2218"));
  check_refused("prepare " + tuned + " -o " + state, 2, "exists");

  // A dry run writes nothing and says what the request then does.
  const std::string dry = succeeds("forget " + state + " --class 3 --dry-run").output;
  CHECK(read_file(state + "/journal.jsonl").empty());
  const std::string real = succeeds("forget " + state + " --class 3 -o " + (folder / "forgot.safetensors")).output;
  CHECK(dry.substr(dry.find("10 of 100"), 40) == real.substr(real.find("10 of 100"), 40));
  CHECK_THAT(real, Catch::Contains("entry 1: 10 of 100 samples forgotten"));
  succeeds("forget " + state + " --where 'class:0 first:2'");
  succeeds("evaluate " + (folder / "forgot.safetensors") + " --samples first:20");
  for (const char* const name : {"record-000001.json", "record-000002.json"})
    CHECK_THAT(succeeds("verify " + state + "/" + name + " --state " + state).output, Catch::Contains("verified"));
  const auto record = nlohmann::json::parse(read_file(state + "/record-000002.json"));
  CHECK(record["result"]["n_after"] == 88);
  CHECK(record["result"]["relative_residual"].get<double>() <= 1e-10);
  CHECK(record["result"]["weights_before_sha256"] ==
        nlohmann::json::parse(read_file(state + "/record-000001.json"))["result"]["weights_after_sha256"]);

  check_refused("forget " + state + " --class 3", 2, "nothing to forget");
  check_refused("forget " + state + " --ids 7", 2, "7");
  check_refused("forget " + state + " --where all", 2, "nothing would be left");
  check_refused("forget " + state, 2, "--ids");
  check_refused("forget " + tuned + " --class 1", 1, "not a folder");

  // A byte changed in any file of the state is named.
  const auto damaged = [&](const std::string& name, size_t at, const std::string& command, const std::string& words) {
    const std::string path = state + "/" + name, whole = read_file(path);
    std::string text = whole;
    text[at] = static_cast<char>(text[at] ^ 1);
    write_file_atomically(path, text);
    INFO(name);
    check_refused(command, 1, words);
    write_file_atomically(path, whole);
  };
  const std::string forget = "forget " + state + " --class 1",
                    verify = "verify " + state + "/record-000001.json --state " + state + " --quiet";
  damaged("manifest.json", 40, forget, "manifest.json");
  damaged("model.safetensors", 100000, forget, "model.safetensors");
  damaged("state.safetensors", 100000, forget, "state.safetensors");
  // Which entry made the last factor depends on how fast this machine makes one.
  std::string factor;
  for (const auto& file : std::filesystem::directory_iterator(state))
    if (const std::string name = file.path().filename().string(); name.starts_with("factor-")) factor = name;
  damaged(factor, 1000000, forget, factor);
  damaged("journal.jsonl", 30, forget, "journal.jsonl");
  damaged("weights-000002.safetensors", 2000, forget, "weights-000002.safetensors");
  damaged("record-000001.json", 200, verify, "record-000001.json");
  // The file of rows is large: a sample's rows are checked when they are read.
  const size_t last = read_file(state + "/rows.safetensors").size() - 1;
  damaged("rows.safetensors", last, "forget " + state + " --where 'class:9'", "rows.safetensors");
  succeeds("forget " + state + " --where 'class:9 first:1'");
  CHECK_THAT(succeeds("forget " + state + " --compact").output, Catch::Contains("new factor"));
  check_refused("forget " + state + " --compact --class 2", 2, "--compact");
  succeeds("forget " + state + " --where 'class:9 first:1'");
}

TEST_CASE("a request that is killed leaves the state before it or after it", "[forget]") {
  const TemporaryFolder folder;
  const std::string tuned = folder / "tuned.safetensors", state = folder / "state";
  succeeds("finetune " + pretrained + " -o " + tuned + " --samples '30000-59999 per-class:6' --epochs 0 --loss mse");
  succeeds("prepare " + tuned + " -o " + state);
  const auto entries = [&] {
    const std::string text = read_file(state + "/journal.jsonl");
    return std::count(text.begin(), text.end(), '\n');
  };
  // Milliseconds after the start; how far a request then is depends on the machine.
  for (const int after : {10, 20, 30, 40, 60, 80, 100, 130, 160, 200}) {
    const auto before = entries();
    const std::string killed = std::string("timeout -s KILL ") + std::to_string(after / 1000.0) + " " +
                               FASTNTK_PROGRAM + " forget " + state + " --where first:1 --quiet > /dev/null 2>&1";
    static_cast<void>(std::system(killed.c_str()));
    const auto now = entries();
    INFO("killed after " << after << " ms: " << before << " entries before, " << now << " now");
    CHECK((now == before || now == before + 1));
    succeeds("forget " + state + " --where first:1 --dry-run");
  }
  succeeds("forget " + state + " --where first:1");
  CHECK_THAT(
      succeeds("verify " + state + "/record-" + fmt::format("{:06}", entries()) + ".json --state " + state).output,
      Catch::Contains("verified"));
}

TEST_CASE("prepare, forget and verify with cross-entropy", "[forget]") {
  const TemporaryFolder folder;
  const std::string tuned = folder / "tuned.safetensors", state = folder / "state";
  succeeds("finetune " + pretrained + " -o " + tuned + " --samples '30000-59999 per-class:6' --epochs 1 --loss ce");
  succeeds("prepare " + tuned + " -o " + state);
  CHECK_THAT(succeeds("forget " + state + " --where 'class:3 first:1'").output, Catch::Contains("with Λ frozen"));
  succeeds("forget " + state + " --class 0");
  CHECK_THAT(succeeds("verify " + state + "/record-000002.json --state " + state).output, Catch::Contains("verified"));
  const auto record = nlohmann::json::parse(read_file(state + "/record-000002.json"))["result"];
  CHECK(record["rule"] == "newton-shift");
  CHECK(record["newton"]["gradient_norm"].get<double>() <=
        1e-8 * record["newton"]["start_gradient_norm"].get<double>());
}
