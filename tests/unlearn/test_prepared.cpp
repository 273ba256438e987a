// A prepared state from the library's side: requests against recomputation from what remains.
#include <catch2/catch.hpp>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"
#include "unlearn/fast_ntk.h"
#include "unlearn/prepared.h"
#include "unlearn/small_models.h"

using namespace fastntk;

namespace {

constexpr int64_t n = 20;

struct Setting {
  Model model = make_model({.architecture = "resnet20", .classes = 4, .channels = 1, .options = {{"width", "4"}}}, 3);
  Samples samples = random_samples(n, {8, 8, 1}, 4, 5, DType::float32);
  Subset subset = choose(*model, "bn");
  Tensor theta0 = Random(4).normal_tensor({subset.size()}, DType::float64);
  double ridge = 2;
  Prepared prepare(const std::string& folder, int64_t crossover) const {
    return Prepared::prepare(folder, model, {}, "bn", theta0, samples, "mse", ridge, {.crossover = crossover});
  }
};

}  // namespace

TEST_CASE("requests to a prepared state equal a recomputation from what remains", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  for (const int64_t crossover : {0, 1000}) {
    const std::string path = folder / std::to_string(crossover);
    {
      Prepared state = s.prepare(path, crossover);
      const ForgetRecord dry = state.forget({3}, true);
      const ForgetRecord real = state.forget({3});
      CHECK(same_bits(dry.theta, real.theta));
      CHECK(real.relative_residual <= 1e-12);
      CHECK(real.representation == (crossover ? "woodbury" : "factor"));
      state.forget({4, 5, 11});
      CHECK_THROWS_WITH(Prepared::open(path, Journal::Access::write), Catch::Contains("another process"));
    }
    Prepared state = Prepared::open(path, Journal::Access::write);
    const ForgetRecord last = state.forget({0});
    CHECK(last.entry == 3);
    CHECK(last.n_after == 15);
    for (int64_t entry = 0; entry <= 3; entry++) {
      INFO("entry " << entry);
      const Prepared::Recomputed r = state.recompute(entry, s.samples);
      CHECK(r.difference <= 1e-10);
      CHECK(same_bits(state.theta_after(entry), entry == 3 ? last.theta : state.theta_after(entry)));
    }
    // And the rule `shift` with ρ unchanged, which knows nothing of states.
    const Jacobian j = jacobian(*s.model, s.subset, s.samples.inputs);
    const LinearisedSet set{j.rows, j.logits, s.samples.labels};
    FastNtk rules(set, {0, 3, 4, 5, 11}, s.theta0, gather(*s.model, s.subset), find_loss("mse"), s.ridge, s.ridge);
    CHECK(relative_error(eigen(last.theta), eigen(rules.update("shift").theta)) <= 1e-10);
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
  CHECK_THROWS_WITH(Prepared::prepare(folder / "ce", s.model, {}, "bn", s.theta0, s.samples, "ce", 1),
                    Catch::Contains("squared error"));

  // Samples that are missing, or not those of the state.
  Samples other = s.samples;
  other.inputs = other.inputs.clone();
  other.inputs.select(0, 6).fill(0);
  CHECK_THROWS_WITH(state.recompute(1, other), Catch::Contains("id 6") && Catch::Contains("hash"));
  CHECK_THROWS_WITH(state.recompute(1, select(s.samples, {0, 1, 2})), Catch::Contains("id 3"));
  CHECK_THROWS_WITH(state.recompute(2, s.samples), Catch::Contains("no entry 2"));
}

TEST_CASE("a state of another version is refused", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  s.prepare(folder / "state", 0);
  const std::string path = folder / "state/manifest.json";
  std::string text = read_file(path);
  const std::string field = "\"format_version\": 1";
  REQUIRE(text.find(field) != std::string::npos);
  write_file_atomically(path, text.replace(text.find(field), field.size(), "\"format_version\": 9"));
  CHECK_THROWS_WITH(Prepared::open(folder / "state", Journal::Access::read), Catch::Contains("version 9"));
}
