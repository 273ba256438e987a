// A prepared state from the library's side: requests against recomputation from what remains.
#include <catch2/catch.hpp>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"
#include "unlearn/fast_ntk.h"
#include "unlearn/prepared.h"
#include "unlearn/small_state.h"

using namespace fastntk;

namespace {

using Setting = test::SmallState;
constexpr int64_t n = Setting::n;

}  // namespace

TEST_CASE("requests to a prepared state equal a recomputation from what remains", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  for (const int64_t crossover : {0, 1000}) {
    const std::string path = folder / std::to_string(crossover);
    std::vector<Tensor> thetas = {gather(*s.model, s.subset)};  // after each entry
    {
      Prepared state = s.prepare(path, crossover);
      const RequestRecord dry = state.forget({3}, {.dry_run = true});
      const RequestRecord real = state.forget({3});
      CHECK(same_bits(dry.theta, real.theta));
      CHECK(real.relative_residual <= 1e-12);
      CHECK(real.representation == (crossover ? "woodbury" : "factor"));
      thetas.push_back(real.theta);
      thetas.push_back(state.forget({4, 5, 11}).theta);
      CHECK_THROWS_WITH(Prepared::open(path, Journal::Access::write), Catch::Contains("another process"));
    }
    Prepared state = Prepared::open(path, Journal::Access::write);
    const RequestRecord last = state.forget({0});
    thetas.push_back(last.theta);
    CHECK(last.entry == 3);
    CHECK(last.n_after == 15);
    for (int64_t entry = 0; entry <= 3; entry++) {
      INFO("entry " << entry);
      const Prepared::Recomputed r = state.recompute(entry, s.samples);
      CHECK(r.difference <= 1e-10);
      CHECK(same_bits(state.theta_after(entry), thetas[static_cast<size_t>(entry)].to(DType::float64)));
    }
    // And the rule `shift` with ρ unchanged, which knows nothing of states.
    const Jacobian j = jacobian(*s.model, s.subset, s.samples.inputs);
    const LinearisedSet set{j.rows, j.logits, s.samples.labels};
    FastNtk rules(set, {0, 3, 4, 5, 11}, s.theta0, gather(*s.model, s.subset), find_loss("mse"), s.ridge, s.ridge);
    CHECK(relative_error(eigen(last.theta), eigen(rules.update("shift").theta)) <= 1e-10);
  }
}

TEST_CASE("with cross-entropy requests give newton-shift, whatever their order", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  const Jacobian j = jacobian(*s.model, s.subset, s.samples.inputs);
  const LinearisedSet set{j.rows, j.logits, s.samples.labels};
  FastNtk rules(set, {0, 3, 4, 5, 11}, s.theta0, gather(*s.model, s.subset), find_loss("ce"), s.ridge, s.ridge);
  const Tensor expected = rules.update("newton-shift").theta;
  for (const int64_t crossover : {0, 18, 1000}) {
    const std::string each = folder / fmt::format("each-{}", crossover);
    Prepared all = s.prepare(folder / fmt::format("all-{}", crossover), crossover, "ce");
    s.prepare(each, crossover, "ce");
    for (const std::vector<int64_t>& ids : {std::vector<int64_t>{3}, {4, 5, 11}, {0}}) {
      const RequestRecord a = all.forget(ids), b = Prepared::open(each, Journal::Access::write).forget(ids);
      CHECK(same_bits(a.theta, b.theta));
      REQUIRE(a.newton.has_value());
      CHECK(a.newton->gradient_norm <= 1e-8 * a.newton->start_gradient_norm);
      CHECK(a.newton->frozen_difference > 0);
      CHECK(a.newton->frozen_difference < 0.5);
    }
    CHECK(relative_error(eigen(all.theta_after(3)), eigen(expected)) <= 1e-8);
    for (int64_t entry = 0; entry <= 3; entry++) {
      INFO("entry " << entry);
      CHECK(all.recompute(entry, s.samples).difference <= 1e-9);
    }
  }
}

TEST_CASE("a process for each request gives the bits of one process for all", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  const std::vector<std::vector<int64_t>> requests = {{3}, {17, 4}, {0}, {9}, {8}, {1, 2}};
  const std::string one = folder / "one", each = folder / "each";
  const int64_t crossover = 18;  // rows, four a sample: the fourth request needs a new factor
  Prepared all = s.prepare(one, crossover);
  s.prepare(each, crossover);
  std::vector<std::string> representations;
  for (const auto& ids : requests) {
    const RequestRecord a = all.forget(ids), b = Prepared::open(each, Journal::Access::write).forget(ids);
    CHECK(same_bits(a.theta, b.theta));
    CHECK(a.relative_residual == b.relative_residual);
    CHECK(a.condition_bound == b.condition_bound);
    CHECK(a.representation == b.representation);
    CHECK(all.journal().entries().back().representation == a.representation);
    representations.push_back(a.representation);
  }
  CHECK(representations ==
        std::vector<std::string>{"woodbury", "woodbury", "woodbury", "factor", "woodbury", "woodbury"});
  // Only what is needed stays.
  for (const std::string& path : {one, each}) {
    CHECK(!file_exists(path + "/factor-000000.safetensors"));
    CHECK(file_exists(path + "/factor-000004.safetensors"));
    CHECK(!file_exists(path + "/pending-000003.safetensors"));
    CHECK(file_exists(path + "/pending-000006.safetensors"));
  }
  // What a process that was killed had begun is written over. A journal that has lost lines is said to have.
  write_file_atomically(each + "/factor-000007.safetensors", "begun");
  const std::string journal = read_file(each + "/journal.jsonl");
  write_file_atomically(each + "/journal.jsonl", journal.substr(0, journal.find('\n') + 1));
  CHECK_THROWS_WITH(Prepared::open(each, Journal::Access::write).forget({5}), Catch::Contains("its end was lost"));
  write_file_atomically(each + "/journal.jsonl", journal);
  std::optional<Prepared> reopened = Prepared::open(each, Journal::Access::write);

  // Folding what left into a new factor is an entry, and changes no result by more than rounding.
  CHECK(reopened->compact());
  CHECK(!reopened->compact());
  CHECK(reopened->journal().entries().back().kind == "compact");
  CHECK(!file_exists(each + "/pending-000006.safetensors"));
  CHECK(same_bits(reopened->theta_after(7), reopened->theta_after(6)));
  reopened.reset();
  const RequestRecord folded = Prepared::open(each, Journal::Access::write).forget({5}), carried = all.forget({5});
  CHECK(folded.entry == 8);
  CHECK(folded.weights_before == carried.weights_before);
  CHECK(relative_error(eigen(folded.theta), eigen(carried.theta)) <= 1e-12);
  CHECK(Prepared::open(each, Journal::Access::read).recompute(8, s.samples).difference <= 1e-10);

  for (const char* const name : {"/factor-000007.safetensors", "/pending-000008.safetensors"}) {
    std::string text = read_file(each + name);
    text[text.size() - 100] = static_cast<char>(text[text.size() - 100] ^ 1);
    const std::string whole = read_file(each + name);
    write_file_atomically(each + name, text);
    CHECK_THROWS_WITH(Prepared::open(each, Journal::Access::write).forget({6}), Catch::Contains(name));
    write_file_atomically(each + name, whole);
  }
}

TEST_CASE("requests that cannot be meant change nothing", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  Prepared state = s.prepare(folder / "state", 1000);
  state.forget({2});
  CHECK_THROWS_WITH(state.forget({}), Catch::Contains("nothing to forget"));
  CHECK_THROWS_WITH(state.forget({1, 1}), Catch::Contains("given twice"));
  CHECK_THROWS_WITH(state.forget({1, 77}), Catch::Contains("77"));
  CHECK_THROWS_WITH(state.forget({2}), Catch::Contains("forgotten before"));
  std::vector<int64_t> rest;
  for (int64_t i = 0; i < n; i++)
    if (i != 2) rest.push_back(i);
  CHECK_THROWS_WITH(state.forget(rest), Catch::Contains("nothing would be left"));
  CHECK(state.journal().entries().size() == 1);
  CHECK_THROWS_WITH(s.prepare(folder / "state", 0), Catch::Contains("exists"));
  CHECK_THROWS_WITH(Prepared::prepare(folder / "small", s.model, {}, "bn", s.theta0, s.samples, "mse", s.ridge,
                                      {.jacobian = {.memory = 1000}}),
                    Catch::Contains("too small for 392 parameters and 4 classes") && Catch::Contains("at least"));
  CHECK(folder.entries() == 1);
  // Samples that are missing, or not those of the state.
  Samples other = s.samples;
  other.inputs = other.inputs.clone();
  other.inputs.select(0, 6).fill(0);
  CHECK_THROWS_WITH(state.recompute(1, other), Catch::Contains("id 6") && Catch::Contains("hash"));
  CHECK_THROWS_WITH(state.recompute(1, select(s.samples, {0, 1, 2})), Catch::Contains("17 samples are needed"));
  CHECK_THROWS_WITH(state.recompute(2, s.samples), Catch::Contains("no entry 2"));
}

TEST_CASE("the rows of a state stay until it is there", "[prepared]") {
  const test::SmallState s;
  const TemporaryFolder folder;
  const std::string path = folder / "state", rows = path + ".rows.partial";
  int64_t asked = 0, allowed = 1 + s.n;
  const SampleSource counting(s.samples.labels, s.samples.ids, [&](const Positions& positions) {
    asked += static_cast<int64_t>(positions.size());
    if (asked > allowed) throw Error("the lights went out");
    return gather_rows(s.samples.inputs, positions);
  });
  const auto prepare = [&] { return Prepared::prepare(path, s.model, {}, "bn", s.theta0, counting, "mse", s.ridge); };
  CHECK_THROWS_WITH(prepare(), Catch::Contains("lights"));  // at the probe: rows and factor are there
  CHECK(file_exists(rows));
  CHECK_FALSE(std::filesystem::exists(path));
  asked = 0, allowed = 1 + s.n + s.n;  // one to plan, all that are compared with their hashes, the probe; no rows
  Prepared state = prepare();
  CHECK(asked == allowed);
  CHECK_FALSE(file_exists(rows));
  CHECK(state.forget({3}).relative_residual <= 1e-10);

  // Where prepare() was killed before it had removed them.
  write_file_atomically(rows, "rows");
  state = Prepared::open(path, Journal::Access::read);
  CHECK(file_exists(rows));
  state = Prepared::open(path, Journal::Access::write);
  CHECK_FALSE(file_exists(rows));
}

TEST_CASE("a rank is refused what prepare() would be refused", "[prepared]") {
  const test::SmallState s;
  const TemporaryFolder folder;
  const auto rank = [&](const Samples& samples, const char* loss, size_t memory) {
    return Prepared::prepare_rank(folder / "state", s.model, {}, "bn", s.theta0, samples, loss, {0, 2},
                                  {.memory = memory});
  };
  CHECK_THROWS_WITH(rank(s.samples, "hinge", 0), Catch::Contains("hinge"));
  CHECK_THROWS_WITH(rank(s.samples, "mse", 1000), Catch::Contains("a memory budget of"));
  Samples wrong = s.samples;
  wrong.labels = wrong.labels.clone();
  wrong.labels.fill(4);
  CHECK_THROWS_WITH(rank(wrong, "mse", 0), Catch::Contains("label 4"));
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("the smallest budget that prepare() names is enough", "[prepared]") {
  const test::SmallState s;
  const TemporaryFolder folder;
  const auto prepare = [&](size_t memory) {
    return Prepared::prepare(folder / "state", s.model, {}, "bn", s.theta0, s.samples, "mse", s.ridge,
                             {.jacobian = {.memory = memory}});
  };
  size_t least = 0;
  try {
    prepare(1000);
  } catch (const UsageError& e) {
    const std::string text = e.what(), before = "at least ";
    least = std::stoull(text.substr(text.find(before) + before.size()));
  }
  REQUIRE(least > 1000);
  CHECK(prepare(least).ids().size() == static_cast<size_t>(s.n));
}

TEST_CASE("a state of another version is refused", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  s.prepare(folder / "state", 0);
  const std::string path = folder / "state/manifest.json";
  std::string text = read_file(path);
  const std::string field = "\"format_version\": 3";
  REQUIRE(text.find(field) != std::string::npos);
  write_file_atomically(path, text.replace(text.find(field), field.size(), "\"format_version\": 9"));
  CHECK_THROWS_WITH(Prepared::open(folder / "state", Journal::Access::read), Catch::Contains("version 9"));
}
