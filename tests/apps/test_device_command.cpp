// --device, and what the program says of devices.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "engine/device.h"
#include "engine/file.h"
#include "engine/npy.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {
const std::string pretrained = std::string(FASTNTK_SOURCE_DIR) + "/checkpoints/resnet20-fashion-mnist-0-8.safetensors";
}

TEST_CASE("predict gives on the emulator what it gives on the CPU") {
  const TemporaryFolder folder;
  const auto logits = [&](const std::string& device) {
    const std::string path = folder.path() + "/" + device + ".npy";
    const Result r = run("predict " + pretrained + " -o " + path + " --samples 0-2 --quiet --device " + device);
    INFO(r.output);
    REQUIRE(r.code == 0);
    return load_npy(path).to(DType::float64).to_vector<double>();
  };
  const std::vector<double> here = logits("cpu"), there = logits("emu");
  REQUIRE(here.size() == there.size());
  for (size_t i = 0; i < here.size(); i++) CHECK(std::abs(there[i] - here[i]) < 1e-4);
}

TEST_CASE("a precision is for one kind of device") {
  const std::string predict = "predict " + pretrained + " -o logits.npy --samples 0-2 --precision ";
  check_refused(predict + "tf32", 2, "--precision tf32 is for --device cuda or emu");
  check_refused(predict + "bf16 --device emu", 2, "--precision bf16 is for --device cpu");
}

TEST_CASE("a model is fine-tuned, prepared, and forgets on the emulator as on the CPU") {
  const TemporaryFolder folder;
  const auto succeeds = [&](const std::string& arguments, const std::string& device) {
    const Result r = run(arguments + " --quiet --device " + device);
    INFO(arguments << "\n" << r.output);
    REQUIRE(r.code == 0);
    return r.output;
  };
  const auto theta = [&](const std::string& device) {
    const std::string tuned = folder / (device + ".safetensors"), state = folder / device,
                      forgot = folder / (device + "-forgot.safetensors");
    succeeds("finetune " + pretrained + " -o " + tuned +
                 " --samples '30000-59999 per-class:1' --epochs 1 --subset head --loss mse",
             device);
    succeeds("prepare " + tuned + " -o " + state, device);
    succeeds("forget " + state + " --class 9 -o " + forgot, device);
    CHECK_THAT(succeeds("verify " + state + "/record-000001.json --state " + state, device),
               Catch::Contains("verified"));
    succeeds("unlearn " + tuned + " --forget class:9 --test-samples first:10 --rule shift", device);
    return SafeTensors::load(forgot).find("fc.weight")->to(DType::float64).to_vector<double>();
  };
  const std::vector<double> here = theta("cpu"), there = theta("emu");
  REQUIRE(here.size() == there.size());
  for (size_t i = 0; i < here.size(); i++) CHECK(std::abs(there[i] - here[i]) < 1e-5);
  check_refused("forget " + (folder / "emu") + " --class 8 --quiet", 2, "by the device emu");
}

TEST_CASE("pretrain and every representation of ntk run on the emulator") {
  const TemporaryFolder folder;
  const auto succeeds = [&](const std::string& arguments, const std::string& device = "emu") {
    const Result r = run(arguments + " --quiet --device " + device);
    INFO(arguments << "\n" << r.output);
    REQUIRE(r.code == 0);
  };
  const std::string small = folder / "small.safetensors", report = folder / "report.json";
  succeeds("pretrain -o " + small + " --width 4 --samples 'class:0-8 first:32' --test-samples first:5 --epochs 1");
  const auto largest = [&](const std::string& how, const std::string& device) {
    succeeds("ntk " + small + " --samples first:4 --subset bn --representation " + how + " --json " + report +
                 (how == "matrix-free" ? " --top 3" : " --spectrum --plot " + (folder / "spectrum.svg")),
             device);
    const auto results = nlohmann::json::parse(read_file(report))["results"];
    std::vector<double> out;
    for (int k = 0; k < 3; k++) out.push_back(results[fmt::format("eigenvalue.{:06}", k)].get<double>());
    return out;
  };
  const std::vector<double> expected = largest("thin", "cpu");
  CHECK(expected[2] > 0);
  for (const char* const how : {"thin", "thin-file", "primal", "dual", "matrix-free"}) {
    INFO(how);
    const std::vector<double> here = largest(how, "emu");
    for (size_t k = 0; k < 3; k++) CHECK(std::abs(here[k] - expected[k]) <= 1e-4 * expected[0]);
  }
  const auto kernel = [&](const std::string& device) {
    succeeds("ntk " + small + " --samples first:4 --subset bn -o " + (folder / "kernel.npy"), device);
    return load_npy(folder / "kernel.npy").to_vector<double>();
  };
  const std::vector<double> block = kernel("cpu"), there = kernel("emu");
  const double size = *std::ranges::max_element(block);
  CHECK(size > 0);
  REQUIRE(there.size() == block.size());
  for (size_t i = 0; i < block.size(); i++) CHECK(std::abs(there[i] - block[i]) <= 1e-5 * size);
}

// Some minutes: in `./run.sh check`, or by its tag.
TEST_CASE("the demo gives on the emulator what it gives on the CPU", "[.emulated-demo]") {
  const TemporaryFolder folder;
  const auto rows = [&](const std::string& device) {
    const std::string json = folder / (device + ".json");
    const Result r = run("demo --n 50 --forget class:9 --oracle-seeds 0 --test-samples 50 --quiet --device " + device +
                         " --json " + json);
    INFO(r.output);
    REQUIRE(r.code == 0);
    return nlohmann::json::parse(read_file(json))["rows"];
  };
  const auto here = rows("cpu"), there = rows("emu");
  REQUIRE(!here.empty());
  REQUIRE(there.size() == here.size());
  for (size_t i = 0; i < here.size(); i++) {
    INFO(here[i].dump());
    CHECK(there[i]["method"] == here[i]["method"]);
    const double expected = here[i]["objective_retain"];
    CHECK(std::abs(there[i]["objective_retain"].get<double>() - expected) <= 1e-3 * expected);
  }
}

TEST_CASE("info says of every device what it is, or why it cannot be used") {
  const Result r = run("info --devices");
  CHECK(r.code == 0);
  CHECK_THAT(r.output, Catch::Contains("cpu ") && Catch::Contains("emu ") && Catch::Contains("cuda "));
}

TEST_CASE("a device that is not there, or cannot be used, is refused before any work") {
  const TemporaryFolder folder;
  const std::string out = folder.path() + "/out.npy";
  check_refused("predict " + pretrained + " -o " + out + " --samples 0-2 --device gpu", 2, "there is no device 'gpu'",
                out);
  if (!reason_unavailable(Device::cuda).empty())
    check_refused("jacobian " + pretrained + " -o " + out + " --samples 0-2 --device cuda", 1,
                  "the device cuda cannot be used", out);
}
