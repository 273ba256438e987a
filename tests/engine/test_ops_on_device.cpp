// Every op on the emulator, or on a GPU, against the CPU: value, jvp and vjp at the points of the
// sample database.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

#include "engine/device.h"
#include "engine/draw.h"
#include "engine/emu/block.h"
#include "engine/error.h"
#include "engine/op_checks.h"
#include "engine/rank.h"
#include "engine/tape.h"
#include "test_device.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

bool has(ActiveSet set, size_t i) { return (set >> i & 1U) != 0; }

// The values of one case, the same for every device.
struct Point {
  Arrays inputs, tangents;
  std::function<Array(const Shape&)> cotangent;

  Point(const Sample& sample, const Case& c) {
    Draws draws(sample.op + sample.note + "emulated");
    for (int attempt = 0; attempt < 500; attempt++) {
      inputs.clear();
      for (const Input& input : sample.inputs) inputs.push_back(draws.input(input, c.layout, c.dtype));
      if (!sample.kink_distance || sample.kink_distance(inputs) >= 0.01) break;
    }
    const Shape lead = c.stack ? Shape{c.stack} : Shape{};
    for (const Array& x : inputs) tangents.push_back(draws.direction(lead + x.shape, c.layout, c.dtype));
    cotangent = [=](const Shape& y) { return Draws("cotangent").direction(lead + y, c.layout, c.dtype); };
  }
};

// Value, J v and Jᵀ u, all as they come from one device.
Arrays run(const Sample& sample, const Case& c, const Point& point, Device device) {
  const auto scope = sample.scope ? sample.scope() : nullptr;
  Tape tape;
  Values inputs, leaves;
  std::vector<std::pair<Variable, Variable>> tangents;
  for (size_t i = 0; i < point.inputs.size(); i++) {
    const Input& input = sample.inputs[i];
    const DType dtype = input.draw == Draw::labels ? DType::int64 : c.dtype;
    const Tensor x = place(point.inputs[i], dtype, c.layout, input.repeated_axis, device);
    inputs.push_back(has(c.active, i) ? tape.leaf(x) : Variable(x));
    if (!has(c.active, i)) continue;
    leaves.push_back(inputs.back());
    tangents.emplace_back(leaves.back(), place(point.tangents[i], c.dtype, c.layout, Input::first_axis, device));
  }
  const Variable y = sample.function(inputs);
  CHECK(y.value.device() == device);
  const Variable jv = tape.jvp(tangents, y);
  const Tensor u = place(point.cotangent(y.shape()), c.dtype, c.layout, Input::first_axis, device);
  Arrays out = {to_array(y.value), jv.defined() ? to_array(jv.value) : Array{}};
  for (const Variable& v : tape.vjp(y, u, leaves)) {
    if (v.defined()) CHECK(v.value.device() == device);
    out.push_back(v.defined() ? to_array(v.value) : Array{});
  }
  return out;
}

// What is wrong, or nothing.
std::string compare(const Sample& sample, const Case& c, Device device) {
  const Point point(sample, c);
  try {
    const Arrays expected = run(sample, c, point, Device::cpu), got = run(sample, c, point, device);
    double size = 0;  // a map may send a direction to zero, up to rounding
    for (const Array& a : expected) size = std::max(size, largest(a));
    for (size_t k = 0; k < got.size(); k++) {
      const char* const what = k == 0 ? "value" : k == 1 ? "jvp" : "vjp";
      if (got[k].shape != expected[k].shape) return fmt::format("{}: shape {}", what, got[k].shape.str());
      const double allowed =
          (c.dtype == DType::float64 ? 1e-12 : sample.tolerance32) * (largest(expected[k]) + 0.1 * size);
      for (size_t i = 0; i < got[k].values.size(); i++)
        if (!(std::abs(got[k].values[i] - expected[k].values[i]) <= allowed))
          return fmt::format("{}: element {} is {}, on the CPU {}", what, i, got[k].values[i], expected[k].values[i]);
    }
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

// Two cases of every sample, which between them have both types, a stack and views; all of them in the full grid.
std::vector<Case> cases(const Sample& sample, size_t number) {
  const char* const wanted = std::getenv("FASTNTK_TEST_GRID");
  if (wanted && std::string(wanted) == "full") return full_grid(sample);
  const ActiveSet all = full_grid(sample).back().active;
  constexpr Layout views[] = {Layout::sliced, Layout::transposed, Layout::expanded};
  return {{all, Layout::contiguous, 0, DType::float64}, {all, views[number % 3], 3, DType::float32}};
}

// "2/16" in FASTNTK_TEST_PART: samples 2, 18, 34 …, so that processes can share the samples out.
Rank part_of_samples() {
  const char* const wanted = std::getenv("FASTNTK_TEST_PART");
  return wanted ? parse_rank(wanted) : Rank{};
}

}  // namespace

TEST_CASE("every op gives the same on a device as on the CPU, whatever the order of the threads", "[device]") {
  const Samples samples = all_samples();
  const Rank part = part_of_samples();
  require(part.count <= std::ssize(samples), "there are {} samples for {} parts", samples.size(), part.count);
  size_t orders = 0;
  for (int64_t k = part.number; k < std::ssize(samples); k += part.count) {
    const auto number = static_cast<size_t>(k);
    const Sample& sample = samples[number];
    for (const Case& c : cases(sample, number)) {
      constexpr emu::Schedule schedules[] = {emu::Schedule::reverse, emu::Schedule::shuffled, emu::Schedule::warps};
      emu::set_schedule(schedules[orders++ % 3]);
      const std::string wrong = compare(sample, c, test_device());
      INFO("part " << part.number << "/" << part.count << ": " << sample.op << " (" << sample.note << "), "
                   << name_of(c.layout) << ", K = " << c.stack << ", " << fastntk::name_of(c.dtype) << ": " << wrong);
      CHECK(wrong.empty());
    }
  }
  emu::set_schedule(emu::Schedule::forward);
}
