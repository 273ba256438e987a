// Kernels of a device at sizes that take several tiles, packs that do not fit, and numbers past 32 bits: what the
// samples of the ops, which are small, do not reach.
#define FASTNTK_GPU emu
#include <catch2/catch.hpp>
#include <memory>

#include "engine/cuda/operand.cuh"
#include "engine/distance.h"
#include "engine/ops/activation.h"
#include "engine/ops/attention.h"
#include "engine/ops/convolution.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/random.h"
#include "engine/tape.h"
#include "test_device.h"

using namespace fastntk;
using test::distance;
using test::test_device;

namespace {

// f's value at `inputs` and its cotangents of those in `active`, of a stack of three cotangents.
template <class F>
std::vector<Tensor> run(Device device, const std::vector<Tensor>& inputs, unsigned active, F&& f) {
  Tape tape;
  std::vector<Variable> arguments, leaves;
  for (size_t i = 0; i < inputs.size(); i++) {
    const Tensor x = inputs[i].to(device);
    arguments.push_back((active >> i & 1U) != 0 ? tape.leaf(x) : Variable(x));
    if ((active >> i & 1U) != 0) leaves.push_back(arguments.back());
  }
  const Variable y = f(arguments);
  std::vector<Tensor> out = {y.value};
  const Tensor u = Random(9).normal_tensor(Shape{3} + y.shape(), y.dtype()).to(device);
  for (const Variable& d : tape.vjp(y, u, leaves)) out.push_back(d.value);
  return out;
}

template <class F>
void check_on_device(const std::vector<Tensor>& inputs, unsigned active, F&& f, double roundings = 20) {
  const auto expected = run(Device::cpu, inputs, active, f), got = run(test_device(), inputs, active, f);
  for (size_t i = 0; i < got.size(); i++) {
    CAPTURE(i);
    CHECK(distance(got[i], expected[i]) < roundings * (inputs[0].dtype() == DType::float32 ? 1e-7 : 1e-15));
  }
}

}  // namespace

TEST_CASE("division by a product and a shift is division") {
  using emu::Divisor;
  const int64_t most = int64_t{1} << 31;
  std::vector<int64_t> divisors = {1, 2, 3, 5, 6, 7, 10, 641, 65535, 65537, int64_t{1} << 40, (int64_t{1} << 62) - 1};
  for (const int64_t by : {-1, 0, 1}) divisors.insert(divisors.end(), {most / 2 + by, most + by});
  const Random random(1);
  for (uint64_t i = 0; i < 200; i++) divisors.push_back(1 + static_cast<int64_t>(random.bits(i) >> (33 + i % 30)));
  for (const int64_t d : divisors) {
    const Divisor divisor(d);
    std::vector<int64_t> numerators = {0, 1, 2, most - 1, most, most + 1, 2 * most - 1, 2 * most, int64_t{1} << 50};
    for (const int64_t times : {int64_t{1}, int64_t{2}, int64_t{3}, most / d, most / d + 1})
      if (times < (int64_t{1} << 62) / d)
        for (const int64_t by : {-1, 0, 1}) numerators.push_back(times * d + by);
    for (uint64_t i = 0; i < 50; i++) numerators.push_back(static_cast<int64_t>(random.bits(1000 + i) >> 33));
    for (const int64_t n : numerators)
      if (n >= 0 && (n / divisor != n / d || n % divisor != n % d)) FAIL(n << " divided by " << d);
  }
}

TEST_CASE("maps of a device, by packs where elements lie side by side and one by one elsewhere", "[device]") {
  const auto same = [](const Tensor& x, const Tensor& row, const Tensor& one) {
    const auto all = [&](Device device) {
      const Variable a = x.to(device), b = row.to(device), c = one.to(device);
      return std::vector<Tensor>{(a * b).value, (b - a).value, relu(a).value, (a + c).value, (exp(a) * c).value};
    };
    const auto expected = all(Device::cpu), got = all(test_device());
    for (size_t i = 0; i < got.size(); i++) {
      CAPTURE(x.describe(), i);
      CHECK(distance(got[i], expected[i]) < (x.dtype() == DType::float32 ? 3e-7 : 1e-15));
    }
  };
  for (const DType dtype : {DType::float32, DType::float64})
    for (const int64_t width : {8, 7, 1})
      for (const int64_t height : {5, 4}) {
        const Tensor whole = Random(1).normal_tensor({3, height + 1, width + 1}, dtype).to(test_device());
        const Tensor column = Random(2).normal_tensor({height, 1}, dtype), one = Random(3).normal_tensor({}, dtype);
        const Tensor x = Random(4).normal_tensor({3, height, width}, dtype);
        same(x, Random(5).normal_tensor({width}, dtype), one);
        same(x, column, one);  // repeated along the last axis
        same(x.transpose(1, 2), Random(6).normal_tensor({height}, dtype), one);
        same(x.slice(2, 0, width).slice(0, 1, 3), column.expand({height, width}), one);
        // Views on the device itself: a row that begins at the second element, rows of another distance, every other
        // one.
        for (const Tensor& view : {whole.slice(2, 1, width + 1), whole.slice(1, 1, height + 1),
                                   whole.slice(2, 0, width, 2), whole.slice(0, 1, 3)}) {
          const Tensor host = view.to(Device::cpu);
          CHECK(distance((Variable(view) * Variable(view)).value, (Variable(host) * Variable(host)).value) < 3e-7);
          for (const DType to : {DType::float32, DType::float64})
            CHECK(distance(view.to(to).contiguous(), host.to(to)) == 0);
        }
      }
}

TEST_CASE("attention of a device over several tiles of queries, keys and features", "[device]") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const auto heads = [&](uint64_t seed, int64_t tokens, int64_t width) {
      return Random(seed).normal_tensor({2, tokens, 2, width}, dtype).permute({0, 2, 1, 3});
    };
    const auto f = [](const std::vector<Variable>& x) { return attention(x[0], x[1], x[2], 0.3); };
    for (const unsigned active : {7U, 4U, 1U, 2U})
      check_on_device({heads(1, 70, 40), heads(2, 140, 40), heads(3, 140, 68)}, active, f);
    check_on_device({heads(1, 3, 70), heads(2, 5, 70), heads(3, 5, 3)}, 7, f);
    // No features: every key has the same probability.
    check_on_device({heads(1, 70, 0), heads(2, 90, 0), heads(3, 90, 4)}, 4, f);
    // Rows of 40 elements of which 39 are used: the last pack would reach beyond, into numbers that are there.
    const auto some = [](const std::vector<Variable>& x) {
      const auto narrower = [](const Variable& v) { return slice(v, -1, 0, v.extent(-1) - 1); };
      return attention(narrower(x[0]), narrower(x[1]), narrower(x[2]), 0.3);
    };
    const auto packed = [&](uint64_t seed, int64_t tokens) {
      return Random(seed).normal_tensor({2, 2, tokens, 40}, dtype);
    };
    check_on_device({packed(1, 9), packed(2, 7), packed(3, 7)}, 7, some);
    // All logits far below those of zeros, which is what lies behind the last key.
    const auto near = [&](double value, uint64_t seed) {
      return Tensor((scale(heads(seed, 70, 8), 0.1) + Variable(Tensor::full({}, value, dtype))).value);
    };
    const double far = dtype == DType::float32 ? 10 : 20;
    check_on_device({near(far, 1), near(-far, 2), heads(3, 70, 8)}, 1, f, 1000);
    // Logits far apart: one key takes all.
    check_on_device({heads(1, 66, 8), Tensor(scale(heads(2, 66, 8), 100).value), heads(3, 66, 8)}, 4, f);
  }
}

TEST_CASE("convolution of a device over several tiles of positions, taps and channels", "[device]") {
  const ConvolutionAlgorithm before = convolution_algorithm();
  const std::shared_ptr<void> as_before(nullptr, [=](void*) { set_convolution_algorithm(before); });
  set_convolution_algorithm(ConvolutionAlgorithm::exact);
  for (const DType dtype : {DType::float32, DType::float64}) {
    const auto check = [&](const Shape& x, const Shape& w, const Conv2dOptions& options) {
      CAPTURE(name_of(dtype), x.str(), w.str());
      check_on_device({Random(1).normal_tensor(x, dtype), Random(2).normal_tensor(w, dtype)}, 3,
                      [&](const std::vector<Variable>& v) { return conv2d(v[0], v[1], options); });
    };
    check({3, 9, 8, 36}, {1, 70, 36, 3, 3}, {.padding = {1, 1}});
    check({2, 12, 11, 68}, {1, 132, 68, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}});
    check({2, 13, 17, 33}, {1, 34, 33, 3, 2}, {.stride = {3, 2}, .padding = {2, 1}, .dilation = {2, 3}});
    check({2, 12, 13, 32}, {1, 48, 32, 1, 1}, {.stride = {2, 3}});
    check({5, 7, 7, 36}, {1, 33, 36, 1, 1}, {});
    check({2, 9, 8, 5}, {1, 70, 5, 3, 3}, {.padding = {1, 1}});  // few channels
    CHECK_THROWS_WITH(
        conv2d(Tensor::zeros({2, 5, 5, 6}, dtype, test_device()), Tensor::zeros({1, 4, 6, 3, 0}, dtype, test_device())),
        Catch::Contains("extents must be positive"));
  }
}
