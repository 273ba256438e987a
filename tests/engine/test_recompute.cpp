#include "engine/recompute.h"

#include <catch2/catch.hpp>

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/random.h"

using namespace fastntk;

namespace {

Tensor normal(uint64_t seed, const Shape& shape, DType dtype = DType::float32) {
  return scale(Random(seed).normal_tensor(shape, dtype), 0.3).value;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.to(DType::float64).to_vector<double>() == b.to(DType::float64).to_vector<double>();
}

// A chain of residual blocks x + exp(x w) u on [N, T, 8], with w tuned.
struct Chain {
  int depth = 8;
  DType dtype = DType::float32;
  bool again = false;
  std::vector<Tensor> w, u;
  Chain(int depth, DType dtype, bool again) : depth(depth), dtype(dtype), again(again) {
    for (int k = 0; k < depth; k++)
      w.push_back(normal(2 * static_cast<uint64_t>(k), {1, 8, 8}, dtype)),
          u.push_back(normal(2 * static_cast<uint64_t>(k) + 1, {1, 8, 8}, dtype));
  }
  Variable operator()(const std::vector<Variable>& weights, Variable x) const {
    for (int k = 0; k < depth; k++) {
      const Tensor second = u[static_cast<size_t>(k)];
      const auto block = [second](const Variable& in, const Variable& weight) {
        return in + linear(square(exp(negate(square(linear(in, weight))))), second);
      };
      const Variable& weight = weights[static_cast<size_t>(k)];
      x = again ? recompute(block, {x, weight}) : block(x, weight);
    }
    return x;
  }
};

struct Run {
  Tensor value, tangent;
  std::vector<Tensor> cotangents;
  size_t saved = 0, peak = 0;
};

// Per-sample leaves, a stack of 3 cotangents and of 3 tangents.
Run run(const Chain& chain, int64_t samples, int64_t tokens) {
  Run out;
  const size_t before = memory_statistics().live;
  reset_peak_memory();
  Tape tape;
  std::vector<Variable> leaves;
  for (const Tensor& w : chain.w) leaves.push_back(tape.per_sample_leaf(w, samples));
  const Variable y = chain(leaves, normal(99, {samples, tokens, 8}, chain.dtype));
  out.value = y.value;
  for (const Variable& c : tape.vjp(y, normal(98, Shape{3} + y.shape(), chain.dtype), leaves))
    out.cotangents.push_back(c.value);
  out.peak = memory_statistics().peak - before;
  std::vector<std::pair<Variable, Variable>> tangents;
  for (size_t k = 0; k < leaves.size(); k++)
    tangents.emplace_back(leaves[k], normal(200 + k, Shape{3} + leaves[k].shape(), chain.dtype));
  out.tangent = tape.jvp(tangents, y).value;
  out.saved = tape.saved_bytes();
  if (chain.again) CHECK(recomputed_bytes(tape) > 0);
  return out;
}

template <class Call>
std::string message(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("recomputed blocks give the same bits, and need less memory") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Run plain = run(Chain(12, dtype, false), 2, 400), again = run(Chain(12, dtype, true), 2, 400);
    CHECK(same_bits(plain.value, again.value));
    CHECK(same_bits(plain.tangent, again.tangent));
    for (size_t k = 0; k < plain.cotangents.size(); k++) CHECK(same_bits(plain.cotangents[k], again.cotangents[k]));
    // Three tensors a block are kept otherwise, and one now.
    CAPTURE(plain.saved, again.saved, plain.peak, again.peak);
    CHECK(again.saved < 2 * plain.saved / 5);
    CHECK(again.peak < 2 * plain.peak / 3);
  }
}

TEST_CASE("a recomputed block is differentiated again with the result that it has without") {
  const Chain plain(3, DType::float64, false), again(3, DType::float64, true);
  const Tensor x = normal(99, {2, 3, 8}, DType::float64);
  Tensors v;
  for (uint64_t k = 0; k < 3; k++) v.push_back(normal(300 + k, {2, 1, 8, 8}, DType::float64));
  const auto objective = [&](const Chain& chain) {
    return [&chain, &x](const std::vector<Variable>& w) { return sum(square(chain(w, x))); };
  };
  const Tensors expected = hvp(objective(plain), plain.w, v), got = hvp(objective(again), again.w, v);
  for (size_t k = 0; k < 3; k++) CHECK(same_bits(got[k], expected[k]));
}

TEST_CASE("what cannot be recomputed is refused") {
  Tape tape;
  const Variable a = tape.leaf(normal(1, {2, 3})), b = tape.leaf(normal(2, {2, 3}));
  CHECK(message([&] { recompute([&](const Variable& x) { return x * b; }, {a}); }) ==
        "recompute: the function depends on a variable that is not among its inputs");
  Tape per_sample;
  const Variable s = per_sample.per_sample_leaf(normal(1, {1, 3}), 2);
  CHECK(message([&] { recompute([](const Variable& x) { return sum(exp(x), {0}); }, {s}); }).find("mixes samples") !=
        std::string::npos);
  int calls = 0;
  const Variable y = recompute([&](const Variable& x) { return ++calls == 1 ? exp(x) : sum(x); }, {a});
  CHECK(message([&] { tape.vjp(y, y.value, std::vector{a}); }) ==
        "recompute: the function gave [2, 3] at first and [] when it ran again");
  // Nothing is recorded where nothing is active.
  CHECK(!recompute([](const Variable& x) { return exp(x); }, {a.constant()}).active());
}
