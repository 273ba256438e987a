#include "engine/functional.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/loss.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/random.h"
#include "worse.h"

using namespace fastntk;

namespace {

Tensor normal(uint64_t seed, const Shape& shape) { return Random(seed).normal_tensor(shape, DType::float64); }

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double m = 0;
  for (size_t i = 0; i < x.size(); i++) m = test::worse(m, std::abs(x[i] - y[i]));
  return m;
}

Tensor as_matrix(const Tensor& t, int64_t rows) { return t.reshape({rows, t.elements() / rows}); }
Tensor times(const Tensor& a, const Tensor& b) { return matmul(a, b).value; }

// Central differences of a gradient, O(h⁴).
template <class Gradient>
Tensor difference(Gradient&& g, const Tensor& x, const Tensor& v) {
  const double h = 1e-3;
  const auto at = [&](double by) { return g(add(x, scale(v, by)).value); };
  return scale(scale(subtract(at(h), at(-h)), 8) - subtract(at(2 * h), at(-2 * h)), 1 / (12 * h)).value;
}

Variable mixed(const Variable& a, const Variable& b) { return exp(matmul(a, b)) * square(a); }  // [2, 2], [2, 2]

}  // namespace

TEST_CASE("jvp and vjp are the derivative of a function of one or several tensors") {
  const Tensor x = Tensor::from<double>({3}, {1, 2, -3}), v = Tensor::from<double>({3}, {1, 10, 100});
  const auto cube = [](const Variable& t) { return t * square(t); };
  const Jvp d = jvp(cube, x, v);
  CHECK(d.value.to_vector<double>() == std::vector<double>{1, 8, -27});
  CHECK(d.tangent.to_vector<double>() == std::vector<double>{3, 120, 2700});
  const Pullback pullback = vjp(cube, x);
  CHECK(pullback.value().to_vector<double>() == std::vector<double>{1, 8, -27});
  for (int round = 0; round < 2; round++) CHECK(pullback(v)[0].to_vector<double>() == d.tangent.to_vector<double>());

  const Tensor a = normal(1, {2, 2}), b = normal(2, {2, 2}), da = normal(3, {4, 2, 2}), u = normal(4, {2, 2});
  const Jvp stacked = jvp(mixed, Tensors{a, b}, Tensors{da, {}});
  CHECK(stacked.tangent.shape() == Shape{4, 2, 2});
  const Tensors jtu = vjp(mixed, Tensors{a, b})(u);
  for (int64_t k = 0; k < 4; k++) {
    const Tensor one = da.select(0, k);
    CHECK(sum(multiply(u, stacked.tangent.select(0, k))).value.item() ==
          Approx(sum(multiply(jtu[0], one)).value.item()).epsilon(1e-12));
  }
}

TEST_CASE("a function of nothing active has zero derivatives of the right shape") {
  const Tensor x = normal(1, {3}), y = normal(2, {2});
  const Function constant = [&](const Variable&) -> Variable { return y; };
  CHECK(jvp(constant, x, normal(3, {5, 3})).tangent.to_vector<double>() == std::vector<double>(10, 0));
  CHECK(vjp(constant, x)(normal(3, {5, 2}))[0].shape() == Shape{5, 3});
  CHECK(jacobian(constant, x).shape() == Shape{2, 3});
  const auto linear_sum = [](const Variable& t) { return sum(t); };
  CHECK(hvp(linear_sum, x, normal(3, {4, 3})).to_vector<double>() == std::vector<double>(12, 0));
}

TEST_CASE("jacobian goes forwards or backwards to the same matrix") {
  const Tensor x = normal(1, {5}), w = normal(2, {1, 70, 5});
  const auto tall = [&](const Variable& t) { return exp(linear(reshape(t, {1, 1, 5}), w)); };  // 70 of 5: forwards
  const Tensor j = jacobian(tall, x);
  CHECK(j.shape() == Shape{1, 1, 70, 5});
  const Tensor y = tall(Variable(x)).value.reshape({70, 1});
  CHECK(largest_difference(as_matrix(j, 70), multiply(y, w.reshape({70, 5})).value) < 1e-13);

  const auto wide = [](const Variable& a, const Variable& b) { return sum(mixed(a, b), {-1}); };  // 2 of 8: backwards
  const Tensor a = normal(3, {2, 2}), b = normal(4, {2, 2});
  const Tensors both = jacobian(wide, Tensors{a, b});
  CHECK(both[0].shape() == Shape{2, 1, 2, 2});
  const Tensor v = normal(5, {2, 2});
  const Tensor jv = jvp(wide, Tensors{a, b}, Tensors{{}, v}).tangent;
  CHECK(largest_difference(times(as_matrix(both[1], 2), v.reshape({4, 1})), jv) < 1e-13);
}

TEST_CASE("hvp is the derivative of the gradient") {
  const Tensor w = normal(1, {1, 6, 4}), x = normal(2, {4}), v = normal(3, {3, 4});
  const auto f = [&](const Variable& t) { return logsumexp(linear(reshape(t * exp(t), {1, 1, 4}), w)); };
  const auto gradient = [&](const Tensor& at) {
    const Pullback p = vjp(f, at);
    return p(Tensor::full(p.value().shape(), 1, DType::float64))[0];
  };
  const Tensor product = hvp(f, x, v);
  REQUIRE(product.shape() == v.shape());
  for (int64_t k = 0; k < 3; k++)
    CHECK(largest_difference(product.select(0, k), difference(gradient, x, v.select(0, k))) < 1e-9);
  // The Hessian of a quadratic form, and blocks of two inputs.
  const Tensor m = normal(4, {3, 3});
  const auto form = [](const Variable& a, const Variable& b) { return sum(a * b * b); };
  const Tensors blocks = hvp(form, Tensors{m, w.slice(1, 0, 3).slice(2, 0, 3).reshape({3, 3})}, Tensors{m, {}});
  CHECK(largest_difference(blocks[0], Tensor::zeros({3, 3}, DType::float64)) == 0);  // ∂²/∂a² = 0
  CHECK(largest_difference(blocks[1], scale(multiply(m, w.slice(1, 0, 3).slice(2, 0, 3).reshape({3, 3})), 2).value) <
        1e-14);  // ∂²/∂b∂a · m = 2 b m
}

TEST_CASE("the Gauss-Newton product is Jᵀ H J for both losses") {
  const Tensor x = normal(1, {3, 4}), w = normal(2, {1, 5, 4}), v = normal(3, {2, 1, 5, 4});
  const Tensor labels = Tensor::from<int64_t>({3}, {0, 4, 2});
  const auto f = [&](const Variable& weight) { return reshape(linear(reshape(x, {3, 1, 4}), weight), {3, 5}); };
  const Function cross = [&](const Variable& y) { return sum(cross_entropy(y, labels)); };
  const Function squared = [&](const Variable& y) { return sum(squared_error(y, one_hot(labels, 5, y.dtype()))); };
  const Tensor j = as_matrix(jacobian(f, w), 15);  // [15, 20]
  const Tensor y = f(Variable(w)).value, p = softmax(y).value;
  for (const bool is_cross : {true, false}) {
    // H of the loss at the logits, block diagonal over samples.
    Tensor h = Tensor::zeros({15, 15}, DType::float64);
    for (int64_t n = 0; n < 3; n++)
      for (int64_t a = 0; a < 5; a++)
        for (int64_t b = 0; b < 5; b++) {
          const double pa = p.select(0, n).select(0, a).item(), pb = p.select(0, n).select(0, b).item();
          h.mutable_data<double>()[(n * 5 + a) * 15 + n * 5 + b] = is_cross ? (a == b ? pa : 0) - pa * pb : a == b;
        }
    const Tensor got = ggn_vp(f, is_cross ? cross : squared, w, v);
    REQUIRE(got.shape() == v.shape());
    for (int64_t k = 0; k < 2; k++) {
      const Tensor expected =
          times(j.transpose(0, 1).contiguous(), times(h, times(j, v.select(0, k).contiguous().reshape({20, 1}))));
      CHECK(largest_difference(got.select(0, k).reshape({20, 1}), expected) < 1e-12);
      // f is linear in w, so the product is that of the whole Hessian.
      const auto whole = [&](const Variable& weight) { return (is_cross ? cross : squared)({f(weight)}); };
      CHECK(largest_difference(hvp(whole, w, v.select(0, k)), got.select(0, k)) < 1e-12);
    }
  }
}

TEST_CASE("ntk is J Jᵀ of rows per sample") {
  const Tensor w = normal(1, {3, 4}), b = normal(2, {3}), x1 = normal(3, {11, 4}), x2 = normal(4, {2, 4});
  const ParametricFunction f = [](const std::vector<Variable>& theta, const Variable& x) {
    const Variable y = linear(reshape(x, {x.extent(0), 1, 4}), theta[0]);
    return exp(reshape(y, {y.extent(0), 3}) + theta[1]);
  };
  const Tensor rows = jacobian_rows(f, {w, b}, x1);
  REQUIRE(rows.shape() == Shape{11, 3, 15});
  for (int64_t i = 0; i < 11; i++) {
    const auto one = [&](const Variable& weight, const Variable& bias) {
      return f({reshape(weight, {1, 3, 4}), reshape(bias, {1, 3})}, x1.slice(0, i, i + 1));
    };
    const Tensors j = jacobian(one, Tensors{w, b});
    CHECK(largest_difference(rows.select(0, i).slice(1, 0, 12), as_matrix(j[0], 3)) < 1e-13);
    CHECK(largest_difference(rows.select(0, i).slice(1, 12, 15), as_matrix(j[1], 3)) < 1e-13);
  }
  const Tensor theta = ntk(f, {w, b}, x1, x2);
  const Tensor expected = times(as_matrix(rows, 33), as_matrix(jacobian_rows(f, {w, b}, x2), 6).transpose(0, 1));
  CHECK(largest_difference(theta, expected) < 1e-11);
}

TEST_CASE("what does not fit is refused with what was expected") {
  const Tensor x = normal(1, {3}), v = normal(2, {2});
  const auto f = [](const Variable& t) { return exp(t); };
  const auto message = [](auto&& call) {
    try {
      call();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  CHECK(message([&] { jvp(f, x, v); }) ==
        "tangent 0 must have the shape [3] of its input, after the same extra leading axes as the others; got [2]");
  CHECK(message([&] { jvp(f, Tensors{x}, Tensors{x, x}); }) == "2 tangents were given for 1 inputs");
  CHECK(message([&] { jvp(f, Tensors{x}, Tensors{{}}); }) == "all tangents are undefined");
  CHECK(message([&] { jvp(f, x, x.to(DType::float32)); }) == "tangent 0 is float32, its input is float64");
  CHECK(message([&] { vjp(f, x)(v); }) ==
        "a cotangent must have the value's shape [3], perhaps after extra leading axes; got [2]");
  CHECK(message([&] { hvp(f, x, x); }) == "a Hessian-vector product needs a value of one element, got [3]");
  CHECK(message([&] { jvp(f, Tensors{x, x}, Tensors{x, x}); }) == "a function of 1 inputs was given 2");
  CHECK(message([&] {
          jacobian_rows([](const auto& t, const auto&) { return sum(t[0]); }, {x}, normal(1, {2, 3}));
        }).find("mixes samples") != std::string::npos);
}
