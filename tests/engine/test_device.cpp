#include "engine/device.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "engine/backend.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/random.h"
#include "engine/tape.h"
#include "test_device.h"

using namespace fastntk;
using Catch::Contains;
using test::test_device;

namespace {

Tensor counted(const Shape& shape) {
  std::vector<double> values(static_cast<size_t>(shape.elements()));
  std::iota(values.begin(), values.end(), 1);
  return Tensor::from(shape, values);
}

struct HostOnly final : Op {
  static const OpInfo& entry() {
    static const OpInfo info{.name = "host_only", .value = "y = x", .differential = "dy = dx", .host_only = true};
    return info;
  }
  HostOnly() : Op(entry()) {}
  Shape shape(std::span<const Shape> in) const override { return in[0]; }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override { return in[0]; }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override { return t[0]; }
  std::vector<Variable> vjp(const Linearisation&, const Variable& c) const override { return {c}; }
};

}  // namespace

TEST_CASE("a tensor goes to a device and comes back, whole or in part, with every type", "[device]") {
  const Tensor x = counted({4, 6});
  for (const DType dtype : {DType::float32, DType::float64, DType::int64, DType::uint8}) {
    const Tensor there = x.to(dtype).to(test_device());
    CHECK(there.device() == test_device());
    CHECK(there.to(Device::cpu).to(DType::float64).to_vector<double>() == x.to_vector<double>());
    CHECK(there.to(DType::float64).slice(1, 1, 6, 2).transpose(0, 1).to_vector<double>() ==
          x.slice(1, 1, 6, 2).transpose(0, 1).to_vector<double>());
  }
  CHECK(x.transpose(0, 1).to(test_device()).to_vector<double>() == x.transpose(0, 1).to_vector<double>());
  CHECK(Tensor::full({3}, 2.5, DType::float32, test_device()).to_vector<float>() == std::vector<float>{2.5, 2.5, 2.5});
  CHECK(Tensor::zeros({0, 3}, DType::float32, test_device()).to(Device::cpu).elements() == 0);
}

TEST_CASE("the memory of a device is counted by itself") {
  release_cached_memory(Device::emu);
  reset_peak_memory(Device::emu);
  const size_t before = memory_statistics(Device::emu).live, host = memory_statistics().live;
  {
    const Tensor x({1 << 18}, DType::float32, Device::emu);
    CHECK(memory_statistics(Device::emu).live == before + (1 << 20));
    CHECK(memory_statistics().live == host);
  }
  CHECK(memory_statistics(Device::emu).live == before);
  CHECK(memory_statistics(Device::emu).peak == before + (1 << 20));
  CHECK(memory_statistics(Device::emu).cached == 1 << 20);
  release_cached_memory(Device::emu);
  CHECK(memory_statistics(Device::emu).cached == 0);
}

TEST_CASE("memory that nobody wrote to does not look like a result") {
  const Tensor x({100}, DType::float32, Device::emu);
  for (const float v : x.to_vector<float>()) CHECK(v != v);
}

TEST_CASE("ops run where their inputs are, with the kernels of that device", "[device]") {
  const Tensor a = counted({3, 4}), b = counted({4, 2});
  const Variable y = exp(scale(matmul(a.to(test_device()), b.to(test_device())), 0.01));
  CHECK(y.value.device() == test_device());
  const std::vector<double> here = exp(scale(matmul(a, b), 0.01)).value.to_vector<double>();
  const std::vector<double> there = y.value.to_vector<double>();
  for (size_t i = 0; i < here.size(); i++) CHECK(there[i] == Approx(here[i]).epsilon(1e-14));
  CHECK(sum(a.to(test_device()), {0, 1}).value.item() == 78);
}

TEST_CASE("nothing is copied between devices unless asked for", "[device]") {
  const Tensor here = counted({2, 2}), there = here.to(test_device());
  CHECK_THROWS_WITH(add(here, there), Contains("add") && Contains("cpu") && Contains(name_of(test_device())));
  CHECK_THROWS_WITH(there.data<double>(),
                    Contains(fmt::format("is in the memory of {}", name_of(test_device()))) && Contains("to(cpu)"));
  Tensor target = here.clone();
  CHECK_THROWS_WITH(target.copy_from(there), Contains(fmt::format("in the memory of {}", name_of(test_device()))));
  Tensor target_there = there.clone();
  CHECK_THROWS_WITH(target_there.copy_from(here), Contains("in the memory of cpu"));
  CHECK_THROWS_WITH(apply(HostOnly(), {there}), Contains("host_only runs on the CPU only"));
  CHECK(apply(HostOnly(), {here}).value.to_vector<double>() == here.to_vector<double>());
}

TEST_CASE("devices have names, and a reason when they cannot be used") {
  CHECK(parse_device("emu") == Device::emu);
  CHECK(std::string(name_of(Device::cuda)) == "cuda");
  CHECK_THROWS_AS(parse_device("gpu"), UsageError);
  CHECK(reason_unavailable(Device::cpu).empty());
  CHECK(reason_unavailable(Device::emu).empty());
  CHECK(describe_devices().size() >= 3);
  if (!reason_unavailable(Device::cuda).empty())
    CHECK_THROWS_WITH(Tensor({1}, DType::float32, Device::cuda), Contains("the device cuda cannot be used"));
}

TEST_CASE("a step of an optimiser on a device is one on the CPU", "[device]") {
  const DType dtype = GENERATE(DType::float32, DType::float64);
  const Shape shape{7, 333};
  const auto drawn = [&](uint64_t seed) { return Random(seed).normal_tensor(shape, dtype); };
  const auto squared = [&] {
    Tensor x = drawn(4);
    backend_of(x).map(UnaryKind::square, 0, x, x);
    return x;
  };
  const auto check = [&](const auto& step) {
    for (const bool flag : {false, true}) {
      std::vector<Tensor> here = {drawn(1), drawn(2), drawn(3), squared()}, there;
      for (const Tensor& t : here) there.push_back(t.to(test_device()));
      step(here, flag), step(there, flag);
      for (size_t k = 0; k < here.size(); k++) {
        const std::vector<double> expected = here[k].to(DType::float64).to_vector<double>(),
                                  got = there[k].to(DType::float64).to_vector<double>();
        for (size_t i = 0; i < got.size(); i++)
          if (!(std::abs(got[i] - expected[i]) <=
                (dtype == DType::float64 ? 1e-14 : 1e-6) * (1 + std::abs(expected[i]))))
            FAIL("element " << i << " of tensor " << k << " is " << got[i] << ", on the CPU " << expected[i]);
      }
    }
  };
  check([](std::vector<Tensor>& t, bool flag) {
    backend_of(t[0]).step(Backend::SgdStep{.gradient = t[0],
                                           .theta = t[1],
                                           .velocity = t[2],
                                           .rate = 0.1,
                                           .momentum = 0.9,
                                           .decay = 0.01,
                                           .nesterov = flag,
                                           .first = !flag});
  });
  check([](std::vector<Tensor>& t, bool flag) {
    backend_of(t[0]).step(Backend::AdamStep{.gradient = t[0],
                                            .theta = t[1],
                                            .mean = t[2],
                                            .square = t[3],
                                            .rate = 0.1,
                                            .beta1 = 0.9,
                                            .beta2 = 0.99,
                                            .epsilon = 1e-8,
                                            .decay = 0.01,
                                            .decoupled = flag,
                                            .steps = 3});
  });
}

TEST_CASE("a long sum or maximum, which a device takes in pieces, has all of its elements and no others", "[device]") {
  constexpr int64_t length = 4 * 4096 + 617;
  for (const bool along : {true, false}) {
    // Of each line 1 … 3, so that an element of another line shows.
    const Tensor lines = add(counted({3, 1}), Tensor::zeros({1, length}, DType::float64)).value;
    const Tensor x = (along ? lines : lines.transpose(0, 1).contiguous()).to(test_device());
    const int axis = along ? 1 : 0;
    const std::vector<double> first = counted({3}).to_vector<double>();
    std::vector<double> sums;
    for (const double v : first) sums.push_back(v * length);
    CHECK(sum(x, {axis}).value.to_vector<double>() == sums);
    CHECK(max(x, axis).value.to_vector<double>() == first);
    CHECK(negate(max(negate(x), axis)).value.to_vector<double>() == first);
  }
}
