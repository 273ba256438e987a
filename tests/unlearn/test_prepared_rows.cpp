// Rows computed in pieces, interrupted and resumed.
#include "unlearn/prepared_rows.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "engine/file.h"
#include "temporary_folder.h"
#include "unlearn/small_models.h"

using namespace fastntk;

namespace {

constexpr int64_t n = 150;  // three pieces

struct Seen {
  std::vector<Tensor> rows, logits;
  std::vector<std::string> hashes;
  SeePart see() {
    return [this](const LinearisedPart& part) {
      REQUIRE(part.first == static_cast<int64_t>(hashes.size()));
      rows.push_back(part.set.rows.clone());
      logits.push_back(part.set.logits.clone());
      hashes.insert(hashes.end(), part.sample_hashes.begin(), part.sample_hashes.end());
    };
  }
};

bool operator==(const Seen& a, const Seen& b) {
  if (a.hashes != b.hashes || a.rows.size() != b.rows.size()) return false;
  for (size_t i = 0; i < a.rows.size(); i++)
    if (!same_bits(a.rows[i], b.rows[i]) || !same_bits(a.logits[i], b.logits[i])) return false;
  return true;
}

// A model, its samples, and what one run over them gives.
struct Rows {
  Model model = make_model({.architecture = "resnet20", .classes = 4, .channels = 1, .options = {{"width", "4"}}}, 3);
  Samples samples = random_samples(n, {8, 8, 1}, 4, 5, DType::float32);
  Subset subset = choose(*model, "bn");
  TemporaryFolder folder;
  std::string file = folder / "rows.pieces";
  Seen expected;
  Rows() { linearise(*model, subset, samples, {}, expected.see()); }
};

}  // namespace

TEST_CASE("rows that an interrupted run left are not computed again, and the bits are the same", "[prepared]") {
  const Rows whole_run;
  const auto& [model, samples, subset, folder, file, expected] = whole_run;
  REQUIRE(expected.hashes.size() == n);
  CHECK(expected.hashes[7] == hash_of_sample(samples, 7));

  // A source that fails once rows of 64 samples are done, and counts what is asked of it.
  int64_t asked = 0, allowed = 1 + 64;
  const SampleSource source(samples.labels, samples.ids,
                            [&, &samples = whole_run.samples](const std::vector<int64_t>& positions) {
                              asked += static_cast<int64_t>(positions.size());
                              if (asked > allowed) throw Error("the lights went out");
                              return gather_rows(samples.inputs, positions);
                            });
  Seen never;
  CHECK_THROWS_WITH(linearise_resumably(*model, subset, source, {}, file, "key", never.see()),
                    Catch::Contains("lights"));
  CHECK(never.hashes.empty());
  REQUIRE(file_exists(file));

  SECTION("it goes on") {
    asked = 0, allowed = 1 + 64 + (n - 64);  // one to plan, those that are compared, those that are missing
    Seen resumed;
    linearise_resumably(*model, subset, source, {}, file, "key", resumed.see());
    CHECK(asked == allowed);
    CHECK(resumed == expected);
    CHECK(file_exists(file));  // until what was made of the rows is on the disk
  }
  SECTION("a piece that is not whole is computed again") {
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
    Seen resumed;
    linearise_resumably(*model, subset, samples, {}, file, "key", resumed.see());
    CHECK(resumed == expected);
  }
  SECTION("another computation is refused, and the rows stay") {
    const auto size = std::filesystem::file_size(file);
    CHECK_THROWS_WITH(linearise_resumably(*model, subset, samples, {}, file, "another key", never.see()),
                      Catch::Contains("has rows of another model"));
    CHECK(std::filesystem::file_size(file) == size);
  }
  SECTION("rows of other samples are refused") {
    Samples other = samples;
    other.inputs = random_samples(n, {8, 8, 1}, 4, 6, DType::float32).inputs;
    CHECK_THROWS_WITH(linearise_resumably(*model, subset, other, {}, file, "key", never.see()),
                      Catch::Contains("other samples"));
  }
}

TEST_CASE("ranks share the rows, and the bits are those of one run", "[prepared]") {
  const Rows whole_run;
  const auto& [model, samples, subset, folder, file, expected] = whole_run;
  int64_t asked = 0;
  const SampleSource counting(samples.labels, samples.ids,
                              [&, &samples = whole_run.samples](const std::vector<int64_t>& positions) {
                                asked += static_cast<int64_t>(positions.size());
                                return gather_rows(samples.inputs, positions);
                              });
  // The last of three is missing: its rows are computed by the run that takes the others over.
  for (const int64_t number : {1, 0}) {
    const RankFile rows = linearise_rank(*model, subset, samples, {}, file, "key", {number, 3});
    CHECK(rows.first == number * 64);
    CHECK(rows.last == (number + 1) * 64);
    CHECK(file_exists(rows.file));
  }
  Seen whole;
  linearise_resumably(*model, subset, counting, {}, file, "key", whole.see());
  CHECK(whole == expected);
  CHECK(asked == 1 + 128 + (n - 128));  // one to plan, those that are compared, those that are missing
  const auto files = [&folder = whole_run.folder] {
    return std::distance(std::filesystem::directory_iterator(folder.path()), {});
  };
  CHECK(files() == 1);
  CHECK(file_exists(file));

  // Those of another run are not touched.
  const RankFile other = linearise_rank(*model, subset, samples, {}, file, "another key", {0, 2});
  CHECK_THROWS_WITH(linearise_resumably(*model, subset, samples, {}, file, "key", whole.see()),
                    Catch::Contains("rank-0-of-2 has rows of another model"));
  CHECK(file_exists(other.file));
  std::filesystem::remove(other.file);
  std::filesystem::remove(file);

  // More ranks than pieces: some have nothing to do. Nor has one that was killed before it had written anything.
  write_file_atomically(file + ".rank-7-of-9", "");
  for (int64_t number = 0; number < 5; number++) linearise_rank(*model, subset, samples, {}, file, "key", {number, 5});
  asked = 0;
  Seen again;
  linearise_resumably(*model, subset, counting, {}, file, "key", again.see());
  CHECK(again == expected);
  CHECK(asked == 1 + n);
  CHECK(files() == 1);

  CHECK(parse_rank("2/4").str() == "rank-2-of-4");
  for (const char* const wrong : {"", "1", "4/4", "-1/4", "1/0", "1/x", "1/4/2", "0/9223372036854775807"})
    CHECK_THROWS_AS(parse_rank(wrong), UsageError);
}
