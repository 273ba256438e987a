// The same bits for any number of threads and any batch size, on tensors large enough to be shared out.
#include <catch2/catch.hpp>
#include <cstring>

#include "engine/ops/convolution.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/loss.h"
#include "engine/ops/normalisation.h"
#include "engine/ops/pool.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/parallel.h"
#include "engine/random.h"
#include "engine/tape.h"

using namespace fastntk;

namespace {

/// A function of inputs [N, …], and of parameters [1, …], which are per-sample leaves.
struct Work {
  std::string name;
  std::vector<Shape> inputs, parameters;
  std::function<Variable(const std::vector<Variable>&)> function;  // of inputs, then parameters
  DType dtype = DType::float32;
};

constexpr int64_t samples = 6;

const std::vector<Work>& works() {
  using Values = std::vector<Variable>;
  static const std::vector<Work> all = {
      {"element-wise",
       {{samples, 28, 29, 16}, {samples, 28, 29, 16}},
       {{1, 1, 1, 16}},
       [](const Values& v) { return relu(v[0] * v[2] + v[1]) / shift(square(v[1]), 1); }},
      {"element-wise, float64",
       {{samples, 14, 15, 17}},
       {{1, 14, 1, 17}},
       [](const Values& v) { return exp(scale(v[0] - v[1], 0.1)) * sqrt(shift(square(v[0]), 1)); },
       DType::float64},
      {"sums",
       {{samples, 31, 32, 20}},
       {},
       [](const Values& v) {
         return mean(square(v[0]), {1, 2}) + sum(v[0], {1, 2});
       }},
      {"sum of rows", {{samples, 300, 70}}, {{1, 300, 1}}, [](const Values& v) { return sum(v[0] * v[1], {-1}); }},
      {"shapes",
       {{samples, 16, 30, 20}, {samples, 16, 30, 5}},
       {},
       [](const Values& v) {
         const Variable joined = concat({v[0], v[1]}, -1);
         const Variable turned = permute(pad(slice(joined, 2, 1, 29, 2), 1, 1, 2), {0, 2, 3, 1});
         return reshape(turned, {turned.extent(0), 14, 25 * 19});
       }},
      {"matmul", {{samples, 90, 130}, {samples, 130, 110}}, {}, [](const Values& v) { return matmul(v[0], v[1]); }},
      {"matmul, float64",
       {{samples, 40, 70}},
       {{1, 70, 50}},
       [](const Values& v) { return matmul(v[0], v[1]); },
       DType::float64},
      {"linear", {{samples, 90, 130}}, {{1, 110, 130}}, [](const Values& v) { return linear(v[0], v[1]); }},
      {"linear, one token", {{samples, 1, 64}}, {{1, 10, 64}}, [](const Values& v) { return linear(v[0], v[1]); }},
      {"linear, frozen weights",
       {{samples, 50, 130}},
       {},
       [](const Values& v) {
         return linear(v[0], Random(3).normal_tensor({1, 110, 130}, v[0].dtype()));
       }},
      {"softmax",
       {{samples, 200, 100}},
       {},
       [](const Values& v) { return softmax(v[0]) + log_softmax(v[0]) * logsumexp(v[0]); }},
      {"max and pooling",
       {{samples, 28, 28, 20}},
       {},
       [](const Values& v) {
         const Variable pooled = max_pool2d(v[0], {{3, 3}, {2, 2}, {1, 1}}) + average_pool2d(v[0], {});
         return global_average_pool(pooled) + max(reshape(pooled, {pooled.extent(0), 1, 196, 20}), 2);
       }},
      {"3x3 convolution",
       {{samples, 14, 15, 32}},
       {{1, 48, 32, 3, 3}},
       [](const Values& v) {
         return conv2d(v[0], v[1], {.padding = {1, 1}});
       }},
      {"3x3 convolution, frozen weights",
       {{samples, 28, 28, 16}},
       {},
       [](const Values& v) {
         return conv2d(v[0], Random(4).normal_tensor({1, 16, 16, 3, 3}, v[0].dtype()), {.padding = {1, 1}});
       }},
      {"3x3 convolution, stride 2, frozen weights",
       {{samples, 28, 28, 16}},
       {},
       [](const Values& v) {
         const Tensor w = Random(5).normal_tensor({1, 32, 16, 3, 3}, v[0].dtype());
         return conv2d(v[0], w, {.stride = {2, 2}, .padding = {1, 1}});
       }},
      {"1x1 convolution, stem and groups",
       {{samples, 28, 28, 3}},
       {{1, 24, 3, 1, 1}, {1, 24, 6, 3, 3}},
       [](const Values& v) {
         return conv2d(conv2d(v[0], v[1]), v[2], {.stride = {2, 2}, .padding = {1, 1}, .groups = 4});
       }},
      {"convolution, float64",
       {{samples, 10, 9, 16}},
       {{1, 16, 16, 3, 3}},
       [](const Values& v) {
         return conv2d(v[0], v[1], {.padding = {1, 1}});
       },
       DType::float64},
      {"batch norm with ReLU and residual",
       {{samples, 28, 28, 40}, {samples, 28, 28, 40}},
       {{1, 40}, {1, 40}},
       [](const Values& v) {
         const Tensor mean = Random(6).normal_tensor({40}, v[0].dtype()),
                      variance = Random(7).uniform_tensor({40}, v[0].dtype());
         return batch_norm_eval(v[0], v[2], v[3], mean, variance, 1e-3, v[1], true);
       }},
  };
  return all;
}

// Rows [from, to) of the whole batch.
Tensor batch(const Shape& shape, uint64_t stream, int axis, int64_t from, int64_t to, DType dtype) {
  return Random(17, stream).normal_tensor(shape, dtype).slice(axis, from, to).clone();
}

// The value, a stack of two cotangents of every leaf, and a stack of two tangents: everything for samples [from, to).
std::vector<Tensor> results(const Work& work, int64_t from, int64_t to) {
  Tape tape;
  std::vector<Variable> v;
  std::vector<std::pair<Variable, Variable>> tangents;
  uint64_t stream = 0;
  for (const Shape& shape : work.inputs) v.push_back(tape.leaf(batch(shape, stream++, 0, from, to, work.dtype)));
  for (const Shape& shape : work.parameters)
    v.push_back(tape.per_sample_leaf(Random(17, stream++).normal_tensor(shape, work.dtype), to - from));
  for (const Variable& leaf : v) {
    Shape whole = Shape{2} + leaf.shape();
    whole[1] = samples;
    tangents.emplace_back(leaf, batch(whole, stream++, 1, from, to, work.dtype));
  }
  const Variable y = work.function(v);
  Shape whole = Shape{2} + y.shape();
  whole[1] = samples;
  std::vector<Tensor> out = {y.value, tape.jvp(tangents, y).value};
  for (const Variable& c : tape.vjp(y, batch(whole, stream, 1, from, to, work.dtype), v)) out.push_back(c.value);
  return out;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor x = a.contiguous(), y = b.contiguous();
  const auto bytes = [](const Tensor& t) {
    return static_cast<const char*>(t.storage()->data()) + static_cast<size_t>(t.offset()) * size_of(t.dtype());
  };
  return std::memcmp(bytes(x), bytes(y), x.bytes()) == 0;
}

}  // namespace

TEST_CASE("results have the same bits for 1, 2 and 3 threads") {
  const int before = thread_count();
  for (const Work& work : works()) {
    set_thread_count(1);
    const auto expected = results(work, 0, samples);
    for (const int threads : {2, 3}) {
      set_thread_count(threads);
      const auto got = results(work, 0, samples);
      for (size_t i = 0; i < expected.size(); i++) {
        CAPTURE(work.name, threads, i);
        CHECK(same_bits(got[i], expected[i]));
      }
    }
  }
  set_thread_count(before);
}

TEST_CASE("gradients summed over the samples have the same bits for 1, 2 and 3 threads") {
  const int before = thread_count();
  const auto gradients = [] {
    Tape tape;
    const Random random(29);
    const Variable x = tape.leaf(random.normal_tensor({samples, 14, 15, 32}));
    const Variable w = tape.leaf(random.stream(1).normal_tensor({1, 32, 32, 3, 3}));
    const Variable gamma = tape.leaf(random.stream(2).normal_tensor({1, 32})),
                   beta = tape.leaf(random.stream(3).normal_tensor({1, 32}));
    const Variable head = tape.leaf(random.stream(4).normal_tensor({1, 10, 32}));
    const Variable y = batch_norm_train(conv2d(x, w, {.padding = {1, 1}}), gamma, beta, Tensor::zeros({32}),
                                        Tensor::full({32}, 1), 0.1, 1e-5);
    const Variable pooled = reshape(global_average_pool(relu(y)), {samples, 1, 32});
    const Variable loss = cross_entropy(reshape(linear(pooled, head), {samples, 10}),
                                        Tensor::from<int64_t>({samples}, {0, 9, 3, 4, 1, 1}));
    const Variable cotangent = random.stream(5).normal_tensor({3, samples});
    std::vector<Tensor> out;
    for (const Variable& c : tape.vjp(loss, cotangent, std::vector{x, w, gamma, beta, head})) out.push_back(c.value);
    return out;
  };
  set_thread_count(1);
  const auto expected = gradients();
  for (const int threads : {2, 3}) {
    set_thread_count(threads);
    const auto got = gradients();
    for (size_t i = 0; i < expected.size(); i++) {
      CAPTURE(threads, i);
      CHECK(same_bits(got[i], expected[i]));
    }
  }
  set_thread_count(before);
}

TEST_CASE("results have the same bits for any batch size") {
  for (const Work& work : works()) {
    const auto expected = results(work, 0, samples);
    for (const int64_t size : {1, 4})
      for (int64_t from = 0; from < samples; from += size) {
        const int64_t to = std::min(samples, from + size);
        const auto got = results(work, from, to);
        for (size_t i = 0; i < expected.size(); i++) {
          CAPTURE(work.name, size, from, i);
          CHECK(same_bits(got[i], expected[i].slice(i == 0 ? 0 : 1, from, to)));
        }
      }
  }
}
