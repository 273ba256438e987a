// docs/ops.md is made from the table of ops and the sample database; FASTNTK_WRITE_OPS=1 writes it, otherwise the
// committed page must be what would be written.
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>

#include "engine/file.h"
#include "engine/samples.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

constexpr const char* page = FASTNTK_SOURCE_DIR "/docs/ops.md";

constexpr const char* introduction = R"(# Ops

This page is made from the table of ops and the sample database of the tests, by
`FASTNTK_WRITE_OPS=1 build/release/tests/tests_engine "[op-table]"`; a test compares it with what the program prints. The functions with their shapes
are in `engine/ops/*.h`; [the tape](tape.md) says what the conventions are, [add an op](add-an-op.md) how to add one.

* **keeps**: what a record holds for its linear map when all inputs are active: inputs by number, the output `y`, or values computed on the way.
* **second order**: whether the vjp can be recorded and differentiated again.
* **per sample**: whether per-sample leaves pass; `refused` where the op mixes samples, `by axis` where that depends on its axes.
* **samples**: points at which the op tests run, each with every set of active inputs, four layouts, stacks and both floating types.

)";

constexpr const char* compositions = R"(
## Functions made of ops

They have no record of their own. The same tests run on them: value, both maps, second order, stacks, per-sample leaves, refusals.

| function | per sample | samples |
|---|---|---:|
)";

constexpr const char* without_derivative = R"(
## Functions without a derivative

`sort`, `topk`, `argmax` and `argmin` (`engine/ops/sort.h`) return values and int64 indices and refuse an input that is on a tape. Equal elements
keep their order. A NaN is greater than every number in `sort` and `topk`; `argmax` and `argmin` return the first NaN if there is one. To
differentiate what they pick, use `gather(x, axis, indices)`.
)";

std::string cell(const std::string& text) {
  std::string escaped;
  for (const char c : text) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return escaped;
}

std::string keeps(const Sample& sample) {
  ActiveSet all = 0;
  for (size_t i = 0; i < sample.inputs.size(); i++)
    if (sample.inputs[i].differentiable) all |= 1U << i;
  const Saved saved = sample.saved(all);
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : ", ") + what; };
  for (size_t i = 0; i < sample.inputs.size(); i++)
    if (saved.inputs >> i & 1U) add(std::to_string(i));
  if (saved.output) add("y");
  if (!saved.extras.empty()) add(fmt::format("{} more", saved.extras.size()));
  return text.empty() ? "nothing" : text;
}

std::string per_sample(const Samples& samples) {
  bool passes = false, refused = false;
  for (const Sample& s : samples) {
    refused |= s.mixes_samples;
    passes |= s.samples > 0 && !s.mixes_samples;
  }
  return passes && refused ? "by axis" : passes ? "yes" : refused ? "refused" : "not tested";
}

std::string markdown() {
  std::map<std::string, Samples> of_ops, of_compositions;
  for (const Sample& s : all_samples()) (s.composition ? of_compositions : of_ops)[s.op].push_back(s);
  std::string text = introduction;
  text += "| op | y | dy | keeps | second order | per sample | samples |\n|---|---|---|---|---|---|---:|\n";
  for (const OpInfo* const op : registered_ops()) {
    if (op->name.rfind("test_", 0) == 0) continue;
    const Samples& samples = of_ops.at(op->name);
    bool first_order_only = true;
    for (const Sample& s : samples) first_order_only &= s.first_order_only;
    text += fmt::format("| `{}` | {} | {} | {} | {} | {} | {} |\n", op->name, cell(op->value), cell(op->differential),
                        keeps(samples[0]), first_order_only ? "refused" : "yes", per_sample(samples), samples.size());
  }
  text += compositions;
  for (const auto& [name, samples] : of_compositions)
    text += fmt::format("| `{}` | {} | {} |\n", name, per_sample(samples), samples.size());
  return text + without_derivative;
}

}  // namespace

TEST_CASE("docs/ops.md is what the table of ops and the sample database say", "[op-table]") {
  const std::string expected = markdown();
  if (std::getenv("FASTNTK_WRITE_OPS")) {
    AtomicFile file(page);
    file.write(expected);
    file.commit();
  }
  INFO("to write the page anew: FASTNTK_WRITE_OPS=1 build/release/tests/tests_engine \"[op-table]\"");
  CHECK(read_file(page) == expected);
}
