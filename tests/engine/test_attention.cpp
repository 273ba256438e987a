// The kernels of attention against the composition of small ops, at sizes that take several blocks of every kind.
#include <catch2/catch.hpp>
#include <cstring>

#include "engine/distance.h"
#include "engine/ops/attention.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/parallel.h"
#include "engine/random.h"
#include "engine/tape.h"

using namespace fastntk;
using test::distance;

namespace {

struct Threads {
  explicit Threads(int n) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
  const int before = thread_count();
};

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.contiguous(), y = b.contiguous();
  const auto bytes = [](const Tensor& t) {
    return static_cast<const char*>(t.storage()->data()) + t.offset() * static_cast<int64_t>(size_of(t.dtype()));
  };
  return x.shape() == y.shape() && std::memcmp(bytes(x), bytes(y), x.bytes()) == 0;
}

// Queries, keys and values [2, 3 heads, tokens, width], views of tokens [2, tokens, heads, width]; more keys than one
// block of a sum has terms.
struct Case {
  explicit Case(DType dtype) {
    const auto heads = [&](uint64_t seed, int64_t tokens, int64_t width) {
      return Random(seed).normal_tensor({2, tokens, 3, width}, dtype).permute({0, 2, 1, 3});
    };
    q = heads(1, 70, 40), k = heads(2, 300, 40), v = heads(3, 300, 24);
    cotangents = Random(4).normal_tensor({3, 2, 70, 3, 24}, dtype).permute({0, 1, 3, 2, 4});
  }
  static constexpr double scale = 0.3;
  Tensor q, k, v, cotangents;
};

// The output and the cotangents of q, k and v.
template <class F>
std::vector<Tensor> values(const Case& c, const Tensor& cotangents, F&& f) {
  Tape tape;
  const std::vector<Variable> leaves = {tape.leaf(c.q), tape.leaf(c.k), tape.leaf(c.v)};
  const Variable y = f(leaves[0], leaves[1], leaves[2]);
  std::vector<Tensor> out = {y.value};
  for (const Variable& d : tape.vjp(y, cotangents, leaves)) out.push_back(d.value);
  return out;
}

Variable fused(const Variable& q, const Variable& k, const Variable& v) { return attention(q, k, v, Case::scale); }
Variable composed(const Variable& q, const Variable& k, const Variable& v) {
  return matmul(softmax(scale(matmul(q, transpose(k, -2, -1)), Case::scale)), v);
}

}  // namespace

TEST_CASE("attention agrees with matrix products and a softmax", "[attention]") {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Case c(dtype);
    const auto ours = values(c, c.cotangents, fused), expected = values(c, c.cotangents, composed);
    for (size_t i = 0; i < ours.size(); i++) {
      CAPTURE(name_of(dtype), i);
      CHECK(distance(ours[i], expected[i]) < (dtype == DType::float32 ? 2e-6 : 1e-14));
    }
  }
}

TEST_CASE("attention has the same bits on any number of threads, and in a stack", "[attention]") {
  const Case c(DType::float32);
  std::vector<Tensor> one, two;
  {
    const Threads threads(1);
    one = values(c, c.cotangents, fused);
  }
  {
    const Threads threads(3);
    two = values(c, c.cotangents, fused);
  }
  for (size_t i = 0; i < one.size(); i++) CHECK(same_bits(one[i], two[i]));
  for (int64_t k = 0; k < c.cotangents.extent(0); k++) {
    const auto alone = values(c, c.cotangents.select(0, k), fused);
    for (size_t i = 1; i < one.size(); i++) CHECK(same_bits(alone[i], one[i].select(0, k)));
  }
}

TEST_CASE("self-attention is attention of the parts of its input, to the bit", "[attention]") {
  const int64_t heads = 3, width = 20;
  const Tensor x = Random(1).normal_tensor({2, 37, 3 * heads * width});
  const Tensor cotangents = Random(2).normal_tensor({4, 2, 37, heads * width});
  const auto both = [&](auto&& f) {
    Tape tape;
    const Variable leaf = tape.leaf(x), y = f(leaf);
    return std::vector<Tensor>{y.value, tape.vjp(y, cotangents, std::vector{leaf})[0].value};
  };
  const auto whole = both([&](const Variable& v) { return self_attention(v, heads, 0.2); });
  const auto parts = both([&](const Variable& v) {
    const auto part = [&](int64_t i) {
      const Variable s = slice(v, -1, i * heads * width, (i + 1) * heads * width);
      return permute(reshape(s, {2, 37, heads, width}), {0, 2, 1, 3});
    };
    return reshape(permute(attention(part(0), part(1), part(2), 0.2), {0, 2, 1, 3}), {2, 37, heads * width});
  });
  for (size_t i = 0; i < whole.size(); i++) CHECK(same_bits(whole[i], parts[i]));
}

TEST_CASE("attention over no queries, and of no features, is sums of nothing", "[attention]") {
  const auto drawn = [](const Shape& shape, uint64_t seed) {
    return Random(seed).normal_tensor(shape, DType::float64);
  };
  Tape tape;
  const Variable k = tape.leaf(drawn({1, 3, 4}, 1)), v = tape.leaf(drawn({1, 3, 2}, 2));
  const Variable none = attention(tape.leaf(drawn({1, 0, 4}, 3)), k, v, 0.5);
  const std::vector<Variable> leaves = {k, v};
  for (const Variable& g : tape.vjp(none, Tensor::zeros({1, 0, 2}, DType::float64), leaves))
    for (const double x : g.value.to_vector<double>()) CHECK(x == 0);
  const Tensor values = drawn({1, 3, 2}, 4);
  const Variable mean_of = attention(drawn({1, 5, 0}, 5), drawn({1, 3, 0}, 6), values, 1);
  const std::vector<double> got = mean_of.value.to_vector<double>(),
                            expected = mean(values, {1}).value.to_vector<double>();
  for (size_t i = 0; i < got.size(); i++) CHECK(got[i] == Approx(expected[i % 2]));
}
