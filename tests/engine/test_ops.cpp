// Every op at every sample of the database. FASTNTK_TEST_GRID=full runs all combinations of active sets, layouts,
// stacks and dtypes; otherwise any two choices meet in at least one case.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "engine/cpu/dispatch.h"
#include "engine/op_checks.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

struct Totals {
  std::set<std::string> ops, compositions;
  size_t samples = 0, cases = 0;
  int64_t checks = 0;
};
Totals totals;

struct PrintTotals : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testRunEnded(const Catch::TestRunStats&) override {
    if (totals.samples)
      std::printf("op tests: %zu samples of %zu ops and %zu functions made of ops, %zu cases, %lld checks\n",
                  totals.samples, totals.ops.size(), totals.compositions.size(), totals.cases,
                  static_cast<long long>(totals.checks));
  }
};
CATCH_REGISTER_LISTENER(PrintTotals)

void test_family(const Samples& samples) {
  REQUIRE(!samples.empty());
  for (const Sample& sample : samples) {
    Report report;
    check_sample(sample, report);
    for (const Case& c : grid(sample)) {
      check_case(sample, c, report);
      totals.cases++;
    }
    (sample.composition ? totals.compositions : totals.ops).insert(sample.op);
    totals.samples++;
    totals.checks += report.checks;
    for (const std::string& failure : report.failures) FAIL_CHECK(failure);
    CHECK(report.checks > 0);
  }
}

}  // namespace

TEST_CASE("the instruction set is the one that is asked for", "[ops]") {
  const char* const wanted = std::getenv("FASTNTK_ISA");
  const std::string in_force = cpu::name_of(cpu::isa());
  CHECK(in_force == (wanted ? wanted : in_force));
}

TEST_CASE("every registered op has samples, and every sample is of a registered op", "[ops]") {
  std::set<std::string> registered, sampled;
  for (const OpInfo* op : registered_ops())
    if (op->name.rfind("test_", 0) != 0) registered.insert(op->name);
  for (const Sample& s : all_samples())
    if (!s.composition)
      sampled.insert(s.op);
    else
      CHECK(registered.count(s.op) == 0);
  CHECK(registered == sampled);
}

TEST_CASE("ops: element-wise", "[ops]") { test_family(elementwise_samples()); }
TEST_CASE("ops: activations", "[ops]") { test_family(activation_samples()); }
TEST_CASE("ops: choosing, dropout", "[ops]") { test_family(select_samples()); }
TEST_CASE("ops: sums", "[ops]") { test_family(reduce_samples()); }
TEST_CASE("ops: shapes", "[ops]") { test_family(shape_samples()); }
TEST_CASE("ops: matrix products", "[ops]") { test_family(linear_samples()); }
TEST_CASE("ops: softmax", "[ops]") { test_family(softmax_samples()); }
TEST_CASE("ops: maxima and indices", "[ops]") { test_family(index_samples()); }
TEST_CASE("ops: losses", "[ops]") { test_family(loss_samples()); }
TEST_CASE("ops: pooling", "[ops]") { test_family(pool_samples()); }
TEST_CASE("ops: convolution", "[ops]") { test_family(convolution_samples()); }
TEST_CASE("ops: batch norm", "[ops]") { test_family(normalisation_samples()); }
TEST_CASE("ops: resizing", "[ops][resize]") { test_family(resize_samples()); }
TEST_CASE("ops: layer norm and its relatives", "[ops]") { test_family(layer_norm_samples()); }
TEST_CASE("ops: attention", "[ops]") { test_family(attention_samples()); }
TEST_CASE("ops: rearrangements", "[ops][index]") { test_family(rearrangement_samples()); }
TEST_CASE("ops: statistics", "[ops][index]") { test_family(statistics_samples()); }
TEST_CASE("ops: einsum", "[ops][index]") { test_family(einsum_samples()); }

TEST_CASE("the pairwise grid meets every pair of choices in a fraction of the full grid", "[ops]") {
  Sample sample;
  sample.inputs = {{{2, 3}}, {{1, 3}}, {{2}, Draw::labels, false, 3}};
  const auto all = full_grid(sample), some = pairwise_grid(sample);
  CHECK(all.size() == 3 * 4 * 2 * 2);
  CHECK(some.size() < all.size() / 2);
  const auto meets = [&](const std::vector<Case>& cases, const auto& both) {
    return std::any_of(cases.begin(), cases.end(), both);
  };
  for (const Case& a : all) {
    CHECK(meets(some, [&](const Case& c) { return c.active == a.active && c.layout == a.layout; }));
    CHECK(meets(some, [&](const Case& c) { return c.active == a.active && c.stack == a.stack; }));
    CHECK(meets(some, [&](const Case& c) { return c.active == a.active && c.dtype == a.dtype; }));
    CHECK(meets(some, [&](const Case& c) { return c.layout == a.layout && c.stack == a.stack; }));
    CHECK(meets(some, [&](const Case& c) { return c.layout == a.layout && c.dtype == a.dtype; }));
    CHECK(meets(some, [&](const Case& c) { return c.stack == a.stack && c.dtype == a.dtype; }));
  }
}
