// Samples that come back, arrive and are purged: whatever was asked before, the state is that of who is there.
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <set>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"
#include "training/gradient.h"
#include "unlearn/prepared.h"
#include "unlearn/relinearise.h"
#include "unlearn/small_state.h"
#include "unlearn/verify_record.h"

using namespace fastntk;

namespace {

using Setting = test::SmallState;

// Samples that the state was not prepared with, with the ids from `first` on.
Samples more_samples(int64_t count, int64_t first) {
  Samples out = random_samples(count, {8, 8, 1}, 4, 77, DType::float32);
  for (size_t i = 0; i < out.ids.size(); i++) out.ids[i] = first + static_cast<int64_t>(i);
  return out;
}

Samples together(const Samples& a, const Samples& b) {
  Samples out{.inputs = Tensor({a.size() + b.size(), 8, 8, 1}, DType::float32),
              .labels = Tensor({a.size() + b.size()}, DType::int64),
              .ids = a.ids};
  out.inputs.slice(0, 0, a.size()).copy_from(a.inputs);
  out.inputs.slice(0, a.size(), a.size() + b.size()).copy_from(b.inputs);
  out.labels.slice(0, 0, a.size()).copy_from(a.labels);
  out.labels.slice(0, a.size(), a.size() + b.size()).copy_from(b.labels);
  out.ids.insert(out.ids.end(), b.ids.begin(), b.ids.end());
  return out;
}

double apart(const Tensor& a, const Tensor& b) { return relative_error(eigen(a), eigen(b)); }

// The last entry of the state, from who is there alone.
void check_last(const Prepared& state, const Samples& samples) {
  const auto last = static_cast<int64_t>(state.journal().entries().size());
  const Prepared::Recomputed r = state.recompute(last, samples);
  CHECK(r.difference <= 1e-9);
  if (state.journal().entries().back().kind == "compact") return;
  const Verification v = verify_record(read_record(state.record_path(last)), state, samples);
  CHECK(v.difference <= v.bound);
}

bool holds(const std::string& file, const Tensor& values) {
  const auto bytes = bytes_of(values);
  const std::string text = read_file(file), wanted(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text.find(wanted) != std::string::npos;
}

}  // namespace

TEST_CASE("restore goes back to an entry", "[prepared]") {
  const Setting s;
  for (const char* const loss : {"mse", "ce"}) {
    const TemporaryFolder folder;
    const std::string path = folder / "state";
    Prepared state = s.prepare(path, 1000, loss);
    const Tensor star = state.theta_after(0), one = state.forget({3, 7}).theta;
    state.forget({0});
    state.forget({11, 12, 13});
    CHECK_THROWS_WITH(state.restore(3, s.samples), Catch::Contains("nothing to restore"));
    CHECK_THROWS_WITH(state.restore(4, s.samples), Catch::Contains("no entry 4"));
    CHECK_THROWS_WITH(state.restore(1, select(s.samples, {0, 1, 2, 11})),
                      Catch::Contains("2 samples are needed") && Catch::Contains("12, 13"));
    Samples other = s.samples;
    other.inputs = other.inputs.clone();
    other.inputs.select(0, 12).fill(0);
    CHECK_THROWS_WITH(state.restore(1, other), Catch::Contains("id 12") && Catch::Contains("hash"));
    CHECK(state.journal().entries().size() == 3);

    const RequestRecord back = state.restore(1, select(s.samples, {0, 11, 12, 13}));
    CHECK(back.restored_to == 1);
    CHECK(back.arrived == std::vector<int64_t>{0, 11, 12, 13});
    CHECK(back.n_before == 14);
    CHECK(back.n_after == 18);
    CHECK(apart(back.theta, one) <= 1e-8);
    check_last(state, s.samples);
    const RequestRecord whole = Prepared(std::move(state)).restore(0, s.samples);
    CHECK(apart(whole.theta, star) <= 1e-8);
    CHECK(whole.linearisation_error == 0);  // what is left of θ − θ* is rounding
    CHECK(whole.advice == "none needed");
    Prepared reopened = Prepared::open(path, Journal::Access::write);
    CHECK(same_bits(reopened.theta_after(5), whole.theta));
    reopened.forget({3});
    check_last(reopened, s.samples);
    for (const int64_t entry : {4, 5, 6})
      replay_record(read_record(reopened.record_path(entry)), reopened, s.samples,
                    folder / fmt::format("again-{}", entry));
  }
}

TEST_CASE("samples that arrive are as those that were there", "[prepared]") {
  const Setting s;
  const Samples more = more_samples(5, 100), all = together(s.samples, more);
  for (const char* const loss : {"mse", "ce"}) {
    const TemporaryFolder folder;
    const std::string path = folder / "state";
    Prepared state = s.prepare(path, 1000, loss);
    state.forget({3});
    const RequestRecord added = state.add(select(more, {0, 1, 2}));
    CHECK(added.arrived == std::vector<int64_t>{100, 101, 102});
    CHECK(added.n_before == 19);
    CHECK(added.n_after == 22);
    check_last(state, all);
    CHECK(state.recompute(1, all).difference <= 1e-9);
    CHECK_THROWS_WITH(state.add(select(more, {2, 3})), Catch::Contains("id 102 already"));
    CHECK_THROWS_WITH(state.add(select(s.samples, {3})), Catch::Contains("which was forgotten"));
    CHECK_THROWS_WITH(state.add(select(more, {})), Catch::Contains("nothing to add"));
    Samples wrong = select(more, {4});
    wrong.labels.fill(9);
    CHECK_THROWS_WITH(state.add(wrong), Catch::Contains("label 9"));
    CHECK(!file_exists(path + "/rows-000003.safetensors"));

    // The same samples in another order of requests: the same weights to rounding.
    Prepared other = s.prepare(folder / "other", 0, loss);
    other.add(select(more, {2, 3}));
    other.add(select(more, {0, 1}));
    other.forget({3, 103});
    CHECK(apart(other.theta_after(3), added.theta) <= 1e-8);
    check_last(other, all);

    // What came may go, also in another process, and restore takes it away.
    state.forget({101});
    const RequestRecord gone = Prepared(std::move(state)).forget({100, 102});
    Prepared reopened = Prepared::open(path, Journal::Access::write);
    CHECK(apart(gone.theta, reopened.theta_after(1)) <= 1e-8);
    check_last(reopened, all);
    reopened.restore(2, all);
    CHECK(apart(reopened.theta_after(5), added.theta) <= 1e-8);
    const RequestRecord before = reopened.restore(0, all);
    CHECK(before.ids == std::vector<int64_t>{100, 101, 102});
    CHECK(before.arrived == std::vector<int64_t>{3});
    CHECK(apart(before.theta, reopened.theta_after(0)) <= 1e-8);
    check_last(reopened, all);
    for (const int64_t entry : {2, 5, 6})
      replay_record(read_record(reopened.record_path(entry)), reopened, all, folder / fmt::format("again-{}", entry));
  }
}

TEST_CASE("a purge removes what is kept of samples that left, and nothing else", "[prepared]") {
  const Setting s;
  for (const char* const loss : {"mse", "ce"}) {
    const TemporaryFolder folder;
    const std::string path = folder / "state";
    const Jacobian j = jacobian(*s.model, s.subset, s.samples.inputs);
    Prepared state = s.prepare(path, 1000, loss);
    CHECK_THROWS_WITH(state.purge(), Catch::Contains("nothing to purge"));
    const Tensor star = state.theta_after(0), first = state.forget({3, 7}).theta, theta = state.forget({0}).theta;
    const auto remains_of = [&](int64_t id) {
      for (const auto& file : std::filesystem::directory_iterator(path))
        if (holds(file.path(), j.rows.select(0, id)) || holds(file.path(), s.samples.inputs.select(0, id))) return true;
      return false;
    };
    CHECK(remains_of(7));
    // What a process that was killed left behind half-written.
    for (const char* const name : {"/rows-000003", "/state-000009", "/factor-000002", "/weights-000003"})
      SafeTensors{.tensors = {{"x", j.rows.select(0, 7)}}}.save(path + name + ".safetensors.partial");
    const RequestRecord purged = state.purge();
    CHECK(same_bits(purged.theta, theta));
    CHECK(purged.n_after == 17);
    CHECK(purged.weights_before == purged.weights_after);
    for (const int64_t id : {0, 3, 7}) CHECK(!remains_of(id));
    CHECK(remains_of(8));
    std::set<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(path)) names.insert(file.path().filename());
    CHECK(names == std::set<std::string>{"factor-000003.safetensors", "journal.jsonl", "journal.jsonl.head",
                                         "manifest.json", "model.safetensors", "record-000001.json",
                                         "record-000002.json", "record-000003.json", "rows-000003.safetensors",
                                         "state-000003.safetensors", "weights-000003.safetensors"});
    check_last(state, select(s.samples, state.ids()));
    CHECK_THROWS_WITH(state.theta_after(1), Catch::Contains("purged by entry 3"));
    CHECK_THROWS_WITH(state.recompute(2, s.samples), Catch::Contains("purged by entry 3"));
    CHECK_THROWS_WITH(state.forget({7}), Catch::Contains("no sample with the id 7"));

    // Requests go on, in another process too.
    const RequestRecord here = state.forget({5});
    state = Prepared::open(folder / "state", Journal::Access::read);
    check_last(state, s.samples);
    Prepared unpurged = s.prepare(folder / "unpurged", 1000, loss);
    unpurged.forget({0, 3, 5, 7});
    CHECK(apart(here.theta, unpurged.theta_after(1)) <= 1e-8);

    // Who was purged comes back from data that are the same.
    state = Prepared::open(path, Journal::Access::write);
    CHECK_THROWS_WITH(state.restore(1, select(s.samples, {1, 5})), Catch::Contains("id 0 is needed"));
    Samples other = s.samples;
    other.inputs = other.inputs.clone();
    other.inputs.select(0, 0).fill(0);
    CHECK_THROWS_WITH(state.restore(1, other), Catch::Contains("left by entry 2"));
    CHECK(!file_exists(path + "/rows-000005.safetensors"));
    CHECK(apart(state.restore(1, s.samples).theta, first) <= 1e-8);
    check_last(state, s.samples);
    CHECK(apart(state.restore(0, s.samples).theta, star) <= 1e-8);
    check_last(state, s.samples);
    state.forget({7, 8});
    state.purge();
    check_last(state, s.samples);
  }
}

TEST_CASE("after a purge restore needs whom it brings back, and knows one sample from another", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  const auto path = [&](const char* name) { return folder / name; };
  {
    Prepared state = s.prepare(path("needed"), 1000, "mse");
    state.forget({3});
    state.restore(0, s.samples);
    state.forget({3});
    state.forget({4});
    state.purge();
    Positions others = all_positions(s.n);
    others.erase(others.begin() + 3);  // sample 3 is gone for good
    CHECK(state.restore(1, select(s.samples, others)).arrived == std::vector<int64_t>{4});
    check_last(state, s.samples);
    CHECK_THROWS_WITH(state.restore(0, select(s.samples, others)), Catch::Contains("id 3 is needed"));
  }
  for (const bool same : {true, false}) {
    Prepared state = s.prepare(path(same ? "same" : "another"), 1000, "mse");
    state.forget({3});
    state.purge();
    Samples back = select(s.samples, {3});
    if (!same) back.inputs.fill(0.5);
    state.add(back);
    CHECK_THROWS_WITH(state.restore(0, s.samples),
                      Catch::Contains(same ? "nothing to restore" : "ids 3 are not those that left by entry 1"));
  }
}

TEST_CASE("whatever the sequence of requests, the state is that of who is there", "[prepared]") {
  const Setting s;
  const Samples more = more_samples(6, 100), all = together(s.samples, more);
  std::map<std::string, int> served;
  for (const char* const loss : {"mse", "ce"})
    for (uint64_t seed = 0; seed < 4; seed++) {
      const TemporaryFolder folder;
      std::optional<Prepared> state = s.prepare(folder / "state", 18, loss);
      uint64_t drawn = 0;
      const auto below = [&](size_t limit) {
        return static_cast<size_t>(Random(seed).below(static_cast<int64_t>(limit), drawn++));
      };
      int requests = 0;
      std::string asked;
      while (requests < 12) {
        if (below(3) == 0) {
          state.reset();
          state = Prepared::open(folder / "state", Journal::Access::write);
        }
        const std::vector<int64_t> here = state->present();
        const size_t kind = below(8);
        INFO(loss << ", seed " << seed << ": " << asked);
        try {
          if (kind < 4) {
            std::vector<int64_t> ids;
            for (size_t k = 0; k <= below(4); k++)
              ids.push_back(state->ids()[static_cast<size_t>(here[below(here.size())])]);
            asked += " forget";
            state->forget(ids);
          } else if (kind < 5) {
            asked += " add";
            state->add(select(more, {static_cast<int64_t>(below(6))}));
          } else if (kind < 6) {
            asked += " restore";
            state->restore(static_cast<int64_t>(below(state->journal().entries().size() + 1)), all);
          } else if (kind < 7) {
            asked += " purge";
            state->purge();
          } else {
            asked += " compact";
            if (!state->compact()) continue;
          }
        } catch (const UsageError&) {
          asked += "(refused)";
          CHECK(state->present() == here);
          continue;
        }
        requests++;
        served[state->journal().entries().back().kind]++;
        check_last(*state, all);
      }
    }
  for (const char* const kind : {"forget", "add", "restore", "purge", "compact"}) {
    INFO(kind);
    CHECK(served[kind] > 0);
  }
}

TEST_CASE("a state is linearised again at its present weights", "[prepared]") {
  const Setting s;
  for (const char* const loss : {"mse", "ce"}) {
    const TemporaryFolder folder;
    Prepared state = s.prepare(folder / "state", 1000, loss);
    const Tensor theta = state.forget({3, 7}).theta;
    const Samples retained = select(s.samples, state.present());
    const auto moved = state.relinearise(folder / "zero", s.samples, 0);
    CHECK(moved.steps.empty());
    CHECK(moved.state.ids() == retained.ids);
    // The model's own type is float32.
    CHECK(apart(moved.state.theta_after(0), theta) <= 1e-6);
    auto again = state.relinearise(folder / "two", s.samples, 2);
    REQUIRE(again.steps.size() == 2);
    CHECK(again.steps[1].objective_after < again.steps[0].objective_before);
    const Model model = s.model.clone();
    scatter(*model, s.subset, theta);
    relinearise(*model, s.subset, retained, find_loss(loss), s.ridge, s.theta0, 2, {});
    CHECK(same_bits(again.state.theta_after(0), gather(*model, s.subset)));
    const RequestRecord next = again.state.forget({5});
    CHECK(next.n_after == 17);
    check_last(again.state, retained);
    CHECK_THROWS_WITH(state.relinearise(folder / "two", s.samples, 2), Catch::Contains("exists"));
    CHECK_THROWS_WITH(state.relinearise(folder / "x", select(s.samples, {1}), 1), Catch::Contains("needed"));
  }
}

TEST_CASE("how far A is from the one at the present weights", "[prepared]") {
  const Setting s;
  const TemporaryFolder folder;
  Prepared state = s.prepare(folder / "state", 1000);
  const RequestRecord r = state.forget({3, 7});
  const Model moved = s.model.clone();
  scatter(*moved, s.subset, r.theta);
  Positions first;
  for (const int64_t i : state.present())
    if (first.size() < Prepared::matrix_probe_size) first.push_back(i);
  const auto gram = [&](const Module& model) {
    const Tensor rows = jacobian(model, s.subset, select(s.samples, first).inputs).rows.to(DType::float64);
    const Eigen::MatrixXd m = eigen_matrix(rows, rows.extent(0) * rows.extent(1));
    return Eigen::MatrixXd(m.transpose() * m);
  };
  const Eigen::MatrixXd a = gram(*s.model), b = gram(*moved);
  CHECK(r.matrix_distance == Approx((b - a).norm() / a.norm()).epsilon(1e-6));
}
