// Random sequences of requests through the commands: three of them, or a hundred with FASTNTK_TEST_GRID=full.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "engine/file.h"
#include "engine/random.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

const std::string pretrained = std::string(FASTNTK_SOURCE_DIR) + "/checkpoints/resnet20-fashion-mnist-0-8.safetensors";

void succeeds(const std::string& arguments) {
  const Result r = run(arguments + " --quiet");
  INFO(arguments << "\n" << r.output);
  REQUIRE(r.code == 0);
}

// Numbers below a bound, one after the other.
class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  int64_t below(int64_t bound) { return static_cast<int64_t>(random_.bits(next_++) % static_cast<uint64_t>(bound)); }
  std::vector<int64_t> some(std::vector<int64_t> from, int64_t count) {
    for (size_t i = 0; i < static_cast<size_t>(count); i++)
      std::swap(from[i], from[i + static_cast<size_t>(below(static_cast<int64_t>(from.size() - i)))]);
    from.resize(static_cast<size_t>(count));
    return from;
  }

 private:
  Random random_;
  uint64_t next_ = 0;
};

std::string list(const std::vector<int64_t>& ids) { return fmt::format("{}", fmt::join(ids, ",")); }

}  // namespace

TEST_CASE("random sequences of requests end where a recomputation from what is left begins", "[forget]") {
  const char* const grid = std::getenv("FASTNTK_TEST_GRID");
  const int64_t sequences = grid && std::string(grid) == "full" ? 100 : 3;
  const TemporaryFolder folder;
  for (int64_t sequence = 0; sequence < sequences; sequence++) {
    CAPTURE(sequence);
    Draw draw(static_cast<uint64_t>(sequence));
    const std::string tuned = folder / fmt::format("tuned-{}.safetensors", sequence % 2), state = folder / "state";
    if (!file_exists(tuned))
      succeeds(fmt::format("finetune {} -o {} --samples '30000-59999 per-class:3' --epochs 1 {}", pretrained, tuned,
                           sequence % 2 ? "--subset head --loss ce" : "--subset bn --head keep-and-random --loss mse"));
    std::filesystem::remove_all(state);
    succeeds("prepare " + tuned + " -o " + state);
    const std::vector<int64_t> all =
        SafeTensors::load(state + "/state-000000.safetensors").find("ids")->to_vector<int64_t>();
    std::vector<std::vector<int64_t>> there = {all};  // after each entry
    const auto refused = [&](const std::vector<int64_t>& ids, const std::string& words) {
      check_refused("forget " + state + " --quiet --ids " + list(ids), 2, words);
    };
    for (int64_t step = 0; step < 5; step++) {
      const std::vector<int64_t> now = there.back();
      std::vector<int64_t> gone;
      std::set_difference(all.begin(), all.end(), now.begin(), now.end(), std::back_inserter(gone));
      CAPTURE(step, now.size());
      // What cannot be done changes nothing.
      switch (draw.below(4)) {
        case 0:
          if (!gone.empty()) refused({gone[0]}, std::to_string(gone[0]));
          break;
        case 1:
          refused({now[0], 5}, "5");
          break;
        case 2:
          refused(now, "nothing would be left");
          break;
        default:
          break;
      }
      const auto size = static_cast<int64_t>(now.size());
      if (there.size() > 1 && draw.below(3) == 0) {
        const int64_t to = draw.below(static_cast<int64_t>(there.size()) - 1);
        const std::string restore = fmt::format("restore {} --to {}", state, to);
        if (there[static_cast<size_t>(to)] == now) {
          check_refused(restore + " --quiet", 2, "there is nothing to restore");
        } else {
          succeeds(restore);
          there.push_back(there[static_cast<size_t>(to)]);
        }
        continue;
      }
      if (size < 2) break;
      const int64_t count = draw.below(2) ? 1 : 1 + draw.below(std::min<int64_t>(8, size - 1));
      std::vector<int64_t> ids = draw.some(now, count), left;
      succeeds("forget " + state + " --ids " + list(ids));
      std::sort(ids.begin(), ids.end());
      std::set_difference(now.begin(), now.end(), ids.begin(), ids.end(), std::back_inserter(left));
      there.push_back(left);
    }
    const std::string last = fmt::format("{}/record-{:06}.json", state, there.size() - 1);
    const auto record = nlohmann::json::parse(read_file(last))["result"];
    CHECK(record["n_after"] == there.back().size());
    CHECK(record["update_norm"].get<double>() > 0);
    CHECK(record["relative_residual"].get<double>() <= 1e-10);
    // A, b and θ anew from what is left alone.
    succeeds("verify " + last + " --state " + state + " --samples ids:" + list(there.back()));
  }
}
