// prepare, forget and verify as their users run them.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "engine/file.h"
#include "engine/progress.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

const std::string pretrained = std::string(FASTNTK_SOURCE_DIR) + "/checkpoints/resnet20-fashion-mnist-0-8.safetensors";

Result succeeds(const std::string& arguments) {
  Result r = run(arguments + " --quiet");
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
  CHECK_THAT(dry, Catch::Contains("of the 90 that remain, the logits of these change most"));
  CHECK(read_file(state + "/journal.jsonl").empty());
  const std::string real = succeeds("forget " + state + " --class 3 -o " + (folder / "forgot.safetensors")).output;
  // From what is forgotten to what the probe says.
  const auto announced = [](const std::string& said) {
    const size_t from = said.find("10 of 100"), probe = said.find("probe:", from);
    REQUIRE(probe != std::string::npos);
    return said.substr(from, said.find('\n', probe) - from);
  };
  CHECK(announced(dry) == announced(real));
  CHECK_THAT(real, Catch::Contains("entry 1: 10 of 100 samples forgotten"));
  const std::string key = folder / "key.pem", open = folder / "key.pub.pem", page = folder / "record.html";
  succeeds("keygen -o " + key);
  succeeds("forget " + state + " --where 'class:0 first:2' --sign " + key + " --html " + page);
  CHECK_THAT(read_file(page), Catch::Contains("Request 2: 2 samples forgotten") && Catch::Contains("Signature"));
  succeeds("evaluate " + (folder / "forgot.safetensors") + " --samples first:20");
  for (const char* const name : {"record-000001.json", "record-000002.json"})
    CHECK_THAT(succeeds("verify " + state + "/" + name + " --state " + state).output, Catch::Contains("verified"));
  // From data without what was forgotten; with it, bit for bit.
  const std::string check = "verify " + state + "/record-000001.json --state " + state;
  succeeds(check + " --samples class:0-2,4-9");
  check_refused(check + " --samples class:0-2,4-8 --quiet", 1, "10 samples are needed that are not among those given");
  CHECK_THAT(succeeds("verify " + state + "/record-000002.json --state " + state + " --replay").output,
             Catch::Contains("replayed from the 100 samples that were prepared"));
  // Signed: known without the state; what was changed is named with it, and known without.
  const std::string signed_record = state + "/record-000002.json";
  CHECK_THAT(succeeds("verify " + signed_record + " --public-key " + open).output,
             Catch::Contains("signature is that of"));
  check_refused("verify " + state + "/record-000001.json --public-key " + open, 1, "not signed");
  check_refused("verify " + signed_record, 2, "--public-key");
  succeeds("keygen -o " + (folder / "other.pem"));
  check_refused("verify " + signed_record + " --public-key " + (folder / "other.pub.pem"), 1, "is signed by the key");
  check_refused("keygen -o " + key, 2, "exists");
  const std::string whole = read_file(signed_record), forged = folder / "forged.json";
  const size_t at = whole.find("\"n_after\": 88");
  REQUIRE(at != std::string::npos);
  write_file_atomically(forged, std::string(whole).replace(at, 13, "\"n_after\": 89"));
  check_refused("verify " + forged + " --public-key " + open, 1, "changed after it was signed");
  check_refused("verify " + forged + " --public-key " + open + " --state " + state, 1, "the field n_after is 89");
  // Metrics, which change nothing of what is signed and bound.
  succeeds("report " + signed_record + " --state " + state + " --test-samples first:100 --html " + page);
  CHECK_THAT(read_file(page), Catch::Contains("What the model does now"));
  succeeds("verify " + signed_record + " --state " + state + " --public-key " + open);
  const auto metrics = nlohmann::json::parse(read_file(signed_record))["metrics"];
  CHECK(metrics["after"]["n_retain"] == 88);
  CHECK(metrics["before"]["acc_retain"].get<double>() > 0.3);
  // Class 0 is not forgotten whole: it stays in the test set.
  CHECK(metrics["after"]["n_test"] == 100);
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
  check_refused("forget " + state + " --class 1 --conv exact", 2, "was prepared with convolutions fast");

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
  damaged("state-000000.safetensors", 100000, forget, "state-000000.safetensors");
  // Which entry made the last factor depends on how fast this machine makes one.
  std::string factor;
  for (const auto& file : std::filesystem::directory_iterator(state))
    if (const std::string name = file.path().filename().string(); name.starts_with("factor-")) factor = name;
  damaged(factor, 1000000, forget, factor);
  damaged("journal.jsonl", 30, forget, "journal.jsonl");
  damaged("weights-000002.safetensors", 2000, forget, "weights-000002.safetensors");
  damaged("record-000001.json", 200, verify, "record-000001.json");
  // The file of rows is large: a sample's rows are checked when they are read.
  const size_t last = read_file(state + "/rows-000000.safetensors").size() - 1;
  damaged("rows-000000.safetensors", last, "forget " + state + " --where 'class:9'", "rows-000000.safetensors");
  succeeds("forget " + state + " --where 'class:9 first:1'");
  // The request before made a new factor itself where this machine makes one quickly: then nothing is pending.
  const auto pending = [&] {
    int64_t count = 0;
    for (const auto& file : std::filesystem::directory_iterator(state))
      count += file.path().filename().string().starts_with("pending-");
    return count;
  };
  const std::string expected = pending() > 0 ? "new factor" : "nothing to fold";
  CHECK_THAT(succeeds("forget " + state + " --compact").output, Catch::Contains(expected));
  CHECK(pending() == 0);
  CHECK_THAT(succeeds("forget " + state + " --compact").output, Catch::Contains("nothing to fold"));
  check_refused("forget " + state + " --compact --class 2", 2, "--compact");
  check_refused("forget " + state + " --compact -o " + (folder / "x.safetensors"), 2, "-o, --html and --sign");
  check_refused("forget " + state + " --class 2 --html " + (folder / "none/x.html"), 1, "cannot write");
  check_refused("forget " + state + " --class 2 -o " + state, 1, "not a regular file");
  check_refused("forget " + state + " --class 2 --json " + (folder / "none/x.json"), 1, "cannot write");
  check_refused("forget " + state + " --class 2 --dry-run -o " + (folder / "x.safetensors"), 2, "no new weights");
  check_refused("forget " + state + " --class -1 --purge", 2, "--class");
  check_refused("verify " + state + "/record-000001.json --state " + state + " --work " + folder.path(), 2, "--replay");
  succeeds("forget " + state + " --where 'class:9 first:1'");
}

TEST_CASE("a model is prepared as it stands, and an interrupted run goes on", "[forget]") {
  const TemporaryFolder folder;
  const std::string prepare =
      "prepare " + pretrained + " --subset bn --l2 0.1 --samples '30000-59999 class:0-8 per-class:20' -o ";
  const std::string whole = folder / "whole", resumed = folder / "resumed";
  CHECK_THAT(succeeds(prepare + whole).output, Catch::Contains("n = 180, P = 1568, ρ = nλ = 18"));
  succeeds("forget " + whole + " --class 8");
  CHECK_THAT(succeeds("verify " + whole + "/record-000001.json --state " + whole).output, Catch::Contains("verified"));
  CHECK_THAT(
      succeeds("verify " + whole + "/record-000001.json --state " + whole + " --rows 10").output,
      Catch::Contains("rows of 10 samples, drawn by the hash of the record, differ from the state's by 0.00e+00") &&
          Catch::Contains("entry 1 verified"));
  check_refused("prepare " + pretrained + " -o " + (folder / "x"), 2, "--subset and --l2");
  check_refused("prepare " + pretrained + " --subset bn --l2 0.1 -o " + (folder / "x"), 2, "label 9");

  check_refused("evaluate " + pretrained + " --samples first:50", 2, "of a sample of class 9");

  // Killed once there are some rows; had it ended before, the file of rows would be gone.
  const std::string rows = resumed + ".rows.partial";
  REQUIRE(std::system(
              fmt::format("{} {} > /dev/null 2>&1 & p=$!; for i in $(seq 600); do [ \"$(stat -c %s {} 2> "
                          "/dev/null || echo 0)\" -gt 100000 ] && break; sleep 0.01; done; kill -9 $p; wait $p; true",
                          FASTNTK_PROGRAM, prepare + resumed + " --threads 1 --quiet", rows)
                  .c_str()) == 0);
  if (!file_exists(resumed)) CHECK(file_exists(rows));
  if (!file_exists(resumed)) succeeds(prepare + resumed + "/");
  CHECK_FALSE(file_exists(rows));
  // The rows by two ranks, then the state.
  const std::string shared = folder / "shared";
  CHECK_THAT(succeeds(prepare + shared + " --rank 0/2").output, Catch::Contains("rows of samples 0 to 64 of 180"));
  succeeds(prepare + shared + "/ --rank 1/2");
  CHECK_FALSE(file_exists(shared));
  CHECK_THAT(succeeds(prepare + shared).output, Catch::Contains("n = 180"));
  CHECK_FALSE(file_exists(shared + ".rows.partial.rank-0-of-2"));
  check_refused(prepare + shared + " --rank 0/2", 2, "exists");
  check_refused(prepare + (folder / "x") + " --rank 2/2", 2, "a rank is K/N");
  for (const char* const name : {"/rows-000000.safetensors", "/state-000000.safetensors"})
    for (const std::string& other : {resumed, shared}) CHECK(read_file(whole + name) == read_file(other + name));
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
  // At fractions of the time that a request takes on this machine.
  const Stopwatch clock;
  succeeds("forget " + state + " --where first:1");
  const double whole = clock.seconds();
  int cut = 0;
  for (const double part : {0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1}) {
    const auto before = entries();
    const std::string killed =
        fmt::format("timeout -s KILL {:.3f} {} forget {} --where first:1 --quiet > /dev/null 2>&1", part * whole,
                    FASTNTK_PROGRAM, state);
    cut += std::system(killed.c_str()) != 0;
    const auto now = entries();
    INFO("killed after " << part << " of " << whole << " s: " << before << " entries before, " << now << " now");
    CHECK((now == before || now == before + 1));
    succeeds("forget " + state + " --where first:1 --dry-run");
  }
  CHECK(cut > 0);
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

TEST_CASE("restore, add, purge and relinearise", "[forget]") {
  const TemporaryFolder folder;
  const std::string tuned = folder / "tuned.safetensors", state = folder / "state", again = folder / "again";
  succeeds("finetune " + pretrained + " -o " + tuned + " --samples '30000-59999 per-class:6' --epochs 1 --loss mse");
  succeeds("prepare " + tuned + " -o " + state);
  succeeds("forget " + state + " --class 3");
  CHECK_THAT(succeeds("forget " + state + " --where 'class:4 first:2' --purge").output,
             Catch::Contains("entry 3: rows, weights and factors that had samples which left are removed; 52 remain"));
  check_refused("forget " + state + " --purge", 2, "nothing to purge");
  check_refused("forget " + state + " --purge --dry-run --class 1", 2, "--dry-run");
  check_refused("verify " + state + "/record-000001.json --state " + state, 1, "purged by entry 3");
  const auto verified = [&](int entry) {
    CHECK_THAT(succeeds(fmt::format("verify {0}/record-{1:06}.json --state {0}", state, entry)).output,
               Catch::Contains("verified"));
  };
  verified(3);
  check_refused("restore " + state + " --to 1 --samples class:0-3 --quiet", 1, "2 samples are needed");
  check_refused("restore " + state + " --to 4", 2, "no entry 4");
  check_refused("restore " + state, 2, "--to");
  // Back to where class 3 was gone and nothing else, then to all.
  CHECK_THAT(succeeds("restore " + state + " --to 1").output,
             Catch::Contains("back to the 54 samples after entry 1: 2 arrived, 0 left"));
  verified(4);
  const std::string page = folder / "page.html", model = folder / "model.safetensors";
  succeeds("restore " + state + " --to 0 --html " + page + " -o " + model);
  CHECK_THAT(read_file(page), Catch::Contains("Request 5: back to entry 0") && Catch::Contains("6 ids"));
  verified(5);
  succeeds("evaluate " + model + " --samples first:20");

  check_refused("add " + state, 2, "--samples");
  check_refused("add " + state + " --samples '30000-59999 per-class:6'", 2, "already");
  CHECK_THAT(succeeds("add " + state + " --samples 'ids:7,11,13'").output, Catch::Contains("3 samples added to 60"));
  verified(6);
  succeeds("forget " + state + " --ids 7,11");
  verified(7);

  CHECK_THAT(succeeds("relinearise " + state + " -o " + again).output,
             Catch::Contains("n = 61, linearised after 1 step from") && Catch::Contains("objective"));
  CHECK_THAT(succeeds("forget " + again + " --ids 13").output, Catch::Contains("1 of 61 samples forgotten"));
  CHECK_THAT(succeeds("verify " + again + "/record-000001.json --state " + again + " --replay").output,
             Catch::Contains("replayed"));
  // A replay needs who came since as well.
  succeeds("add " + again + " --samples ids:17,19");
  CHECK_THAT(succeeds("verify " + again + "/record-000002.json --state " + again + " --replay").output,
             Catch::Contains("entry 2 replayed from the 61 samples"));
  write_file_atomically(folder / "ids to forget", "17\n19");
  succeeds("forget " + again + " --ids-file '" + (folder / "ids to forget") + "'");
  check_refused("relinearise " + state + " -o " + again, 2, "exists");
  check_refused("relinearise " + state + " -o " + (folder / "x") + " --steps -1", 2, "--steps");
}
