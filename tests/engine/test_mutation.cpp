// The mutation check: whatever single term of an op's jvp or vjp is spoiled, the op tests notice. Over every op and
// every sample of the database.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <set>

#include "engine/mutation.h"
#include "engine/op_checks.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

std::string describe(const Sample& sample, const Mutation& m) {
  return fmt::format("{} ({}): the term of input {} in its {} times {}", sample.op, sample.note, m.input,
                     m.map == Mutation::Map::jvp ? "jvp" : "vjp", m.factor);
}

// Failures other than exceptions in the first case in which there are any; an active set must have the input.
std::vector<std::string> failures_of(const Sample& sample, const Mutation& mutation) {
  const Sample spoiled = mutated(sample, mutation);
  for (const Case& c : pairwise_grid(sample)) {
    if ((c.active >> mutation.input & 1U) == 0) continue;
    Report report;
    check_case(spoiled, c, report);
    std::erase_if(report.failures, [](const std::string& f) { return f.rfind("exception", 0) == 0; });
    if (!report.failures.empty()) return report.failures;
    if (mutation.factor == 1) break;
  }
  return {};
}

// A linear map that is zero (from nothing, to nothing, or of an input that decides and does not count) has no term that
// could be wrong: the reference does not change with the input.
bool is_zero(const Sample& sample, size_t input) {
  Draws draws(sample.op);
  Arrays point;
  for (const Input& in : sample.inputs) point.push_back(draws.input(in, Layout::contiguous, DType::float64));
  const std::vector<double> before = sample.reference(point).values;
  for (double& x : point[input].values) x += 1e-4;
  return sample.reference(point).values == before;
}

}  // namespace

TEST_CASE("mutation: every spoiled jvp and vjp of every op is noticed", "[mutation]") {
  std::set<std::string> ops, every;
  int64_t mutations = 0, noticed = 0;
  for (const Sample& sample : all_samples()) {
    if (sample.composition) continue;
    every.insert(sample.op);
    for (size_t input = 0; input < sample.inputs.size(); input++) {
      if (!sample.inputs[input].differentiable || is_zero(sample, input)) continue;
      ops.insert(sample.op);
      for (const Mutation::Map map : {Mutation::Map::jvp, Mutation::Map::vjp}) {
        for (const double factor : {-1.0, 0.0, 1.01}) {
          const Mutation mutation{map, input, factor};
          mutations++;
          const bool found = !failures_of(sample, mutation).empty();
          noticed += found;
          if (!found) FAIL_CHECK("not noticed: " << describe(sample, mutation));
        }
        // The wrapper itself spoils nothing.
        const Mutation none{map, input, 1};
        const std::vector<std::string> failures = failures_of(sample, none);
        if (!failures.empty()) FAIL_CHECK(describe(sample, none) << " failed: " << failures[0]);
      }
    }
  }
  CHECK(ops == every);
  CHECK(noticed == mutations);
  std::printf("mutation check: %zu ops, %lld mutations of a jvp or vjp, %lld noticed\n", ops.size(),
              static_cast<long long>(mutations), static_cast<long long>(noticed));
}
