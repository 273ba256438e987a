#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "engine/ops/elementwise.h"
#include "engine/ops/gather.h"
#include "engine/ops/linear.h"
#include "engine/ops/loss.h"
#include "engine/ops/pool.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/parallel.h"
#include "engine/tape.h"

using namespace fastntk;

namespace {

using Function = std::function<Variable(const Variable&)>;

Tensor random(const Shape& shape, uint64_t seed) {
  std::mt19937_64 bits(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(shape.elements()));
  for (double& v : values) v = normal(bits);
  return Tensor::from<double>(shape, values);
}

double inner(const Variable& a, const Variable& b) { return sum(a.constant() * b.constant()).value.item(); }

void check_close(const Tensor& a, const Tensor& b, double bound) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double worst = 0;
  for (size_t i = 0; i < x.size(); i++) {
    const double difference = std::abs(x[i] - y[i]) / (1 + std::abs(y[i]));
    if (!(difference <= worst)) worst = difference;  // a NaN counts
  }
  CHECK(worst <= bound);
}

// The derivative of y = f(x), and of the vjp of f, against central differences; the dot test; stacks against loops.
void check_derivatives(const Function& f, const Tensor& x0) {
  Tape tape;
  const Variable x = tape.leaf(x0, "x"), y = f(x);
  const Tensor direction = random(x0.shape(), 1), c = random(y.shape(), 2);
  const std::pair<Variable, Variable> along{x, direction};
  const double h = 1e-5;
  const auto at = [&](double step) { return Variable(x0) + step * Variable(direction); };

  const Variable dy = tape.jvp(std::span(&along, 1), y);
  check_close(dy.value, (scale(f(at(h)) - f(at(-h)), 0.5 / h)).value, 1e-8);
  const Variable dx = tape.vjp(y, c, std::vector{x})[0];
  CHECK(inner(c, dy) == Approx(inner(dx, direction)).epsilon(1e-12));

  const Tensor cs = random(Shape{3} + y.shape(), 3), ts = random(Shape{3} + x0.shape(), 4);
  const Variable stacked_dx = tape.vjp(y, cs, std::vector{x})[0];
  const std::pair<Variable, Variable> all{x, ts};
  const Variable stacked_dy = tape.jvp(std::span(&all, 1), y);
  for (int64_t k = 0; k < 3; k++) {
    check_close(stacked_dx.value.select(0, k), tape.vjp(y, cs.select(0, k), std::vector{x})[0].value, 0);
    const std::pair<Variable, Variable> one{x, ts.select(0, k)};
    check_close(stacked_dy.value.select(0, k), tape.jvp(std::span(&one, 1), y).value, 0);
  }

  for (const Tensor& seed : {c, cs}) {
    const auto gradient = [&](const Variable& point) {
      Tape other;
      const Variable leaf = other.leaf(point.value);
      return other.vjp(f(leaf), seed, std::vector{leaf})[0];
    };
    const Variable recorded = tape.vjp(y, seed, std::vector{x}, true)[0];
    const Variable second = recorded.active() ? tape.jvp(std::span(&along, 1), recorded) : Variable{};
    check_close(second.defined() ? second.value : Tensor::zeros(recorded.shape(), DType::float64),
                scale(gradient(at(h)) - gradient(at(-h)), 0.5 / h).value, 1e-7);
    if (!second.defined()) continue;
    const Tensor u = random(recorded.shape(), 5);
    CHECK(inner(u, second) ==
          Approx(inner(tape.vjp(recorded, u, std::vector{x})[0], direction)).epsilon(1e-11).margin(1e-12));
  }
}

const Pool2dOptions overlapping{.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 1}};

}  // namespace

TEST_CASE("softmax and its kin: values and derivatives") {
  const Tensor x = Tensor::from<double>({2, 3}, {0, std::log(2.0), std::log(5.0), 1000, 1000, -1000});
  check_close(softmax(x).value, Tensor::from<double>({2, 3}, {0.125, 0.25, 0.625, 0.5, 0.5, 0}), 1e-14);
  check_close(logsumexp(x).value, Tensor::from<double>({2, 1}, {std::log(8.0), 1000 + std::log(2.0)}), 1e-14);
  check_close(log_softmax(x).value, (Variable(x) - logsumexp(x)).value, 1e-13);
  for (const Function f : {softmax, log_softmax, logsumexp}) check_derivatives(f, random({4, 7}, 5));
  check_derivatives([](const Variable& v) { return softmax(transpose(v, 0, 1)); }, random({4, 7}, 5));
}

TEST_CASE("softmax of infinite and missing numbers, and of rows of every length") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const DType dtype : {DType::float32, DType::float64})
    for (int64_t n = 1; n <= 37; n++) {
      const Tensor x = Tensor::full({3, n}, 2, dtype);
      Tensor first = x.slice(0, 0, 1), second = x.slice(0, 1, 2);  // other handles of the same elements
      first.fill(-infinity);
      first.slice(1, n - 1, n).fill(1);
      second.slice(1, n - 1, n).fill(nan);
      const auto p = softmax(x).value.to(DType::float64).to_vector<double>();
      const auto l = logsumexp(x).value.to(DType::float64).to_vector<double>();
      const size_t width = static_cast<size_t>(n);
      for (size_t c = 0; c < width; c++) {
        CHECK(p[c] == (c + 1 == width ? 1 : 0));
        CHECK(std::isnan(p[width + c]));
        CHECK(p[2 * width + c] == Approx(1.0 / static_cast<double>(n)).epsilon(1e-6));
      }
      CHECK(l[0] == 1);
      CHECK(std::isnan(l[1]));
      CHECK(l[2] == Approx(2 + std::log(static_cast<double>(n))).epsilon(1e-6));
    }
  CHECK(logsumexp(Tensor::full({1, 3}, -infinity)).value.item() == -infinity);
  CHECK(logsumexp(Tensor::from<double>({1, 2}, {0, infinity})).value.item() == infinity);
}

TEST_CASE("max: the first of equal values has the derivative, a NaN wins") {
  Tape tape;
  const Variable x = tape.leaf(Tensor::from<double>({2, 3}, {1, 7, 7, NAN, 2, 3}));
  const Variable y = max(x, 1);
  CHECK(y.value.to_vector<double>()[0] == 7);
  CHECK(std::isnan(y.value.to_vector<double>()[1]));
  CHECK(std::isnan(max(x.constant(), -1).value.to_vector<double>()[1]));
  const Tensor c = Tensor::from<double>({2, 1}, {1, 1});
  CHECK(tape.vjp(y, c, std::vector{x})[0].value.to_vector<double>() == std::vector<double>{0, 1, 0, 1, 0, 0});
  for (const int axis : {0, 1, 2})
    check_derivatives([&](const Variable& v) { return max(v, axis); }, random({3, 4, 5}, 6));
}

TEST_CASE("losses: values, derivatives, labels out of range") {
  const Tensor logits = random({4, 3}, 7), targets = random({4, 3}, 8);
  const Tensor labels = Tensor::from<int64_t>({4}, {2, 0, 1, 1});
  const auto p = log_softmax(logits).value.to_vector<double>();
  const auto loss = cross_entropy(logits, labels, 0.3).value.to_vector<double>();
  CHECK(loss[0] == Approx(-0.1 * (p[0] + p[1]) - 0.8 * p[2]));
  CHECK(one_hot(labels, 3).to_vector<float>() == std::vector<float>{0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0});
  check_derivatives([&](const Variable& v) { return cross_entropy(v, labels); }, logits);
  check_derivatives([&](const Variable& v) { return cross_entropy(v, labels, 0.3); }, logits);
  check_derivatives([&](const Variable& v) { return squared_error(v, targets); }, logits);
  CHECK_THROWS_WITH(cross_entropy(logits, Tensor::from<int64_t>({4}, {0, 1, 3, 1})),
                    Catch::Contains("label 3 of sample 2"));
  CHECK_THROWS_WITH(cross_entropy(logits, labels.slice(0, 0, 3)), Catch::Contains("N labels, got [4, 3] and [3]"));
}

TEST_CASE("gather and scatter_add are transposes, with the index broadcast") {
  const Tensor index = Tensor::from<int64_t>({1, 3, 2}, {0, 4, 2, 4, 0, 1});
  check_derivatives([&](const Variable& v) { return gather(v, 1, index); }, random({3, 5, 2}, 9));
  check_derivatives([&](const Variable& v) { return scatter_add(v, 1, index, 5); }, random({3, 3, 2}, 9));
  const Variable y = scatter_add(Tensor::from<double>({1, 3, 2}, {1, 2, 3, 4, 5, 6}), -2, index, 5);
  CHECK(y.value.to_vector<double>() == std::vector<double>{6, 0, 0, 6, 3, 0, 0, 0, 0, 6});
  CHECK_THROWS_WITH(gather(random({3, 4, 2}, 9), 1, index), Catch::Contains("index 4 is outside an axis of extent 4"));
}

TEST_CASE("pooling: values and derivatives") {
  const Tensor x = Tensor::from<double>({1, 2, 3, 1}, {1, 2, 3, 4, 6, 5});
  const Pool2dOptions two{.kernel = {2, 2}, .stride = {1, 1}};
  CHECK(max_pool2d(x, two).value.to_vector<double>() == std::vector<double>{6, 6});
  CHECK(average_pool2d(x, two).value.to_vector<double>() == std::vector<double>{3.25, 4});
  CHECK(global_average_pool(x).value.to_vector<double>() == std::vector<double>{3.5});
  const Tensor images = random({2, 5, 4, 3}, 10);
  for (const Pool2dOptions& options : {two, overlapping}) {
    check_derivatives([&](const Variable& v) { return max_pool2d(v, options); }, images);
    check_derivatives([&](const Variable& v) { return average_pool2d(v, options); }, images);
  }
  check_derivatives(global_average_pool, images);
  check_derivatives([](const Variable& v) { return max_pool2d(transpose(v, 1, 3), overlapping); }, images);
  CHECK_THROWS_WITH(max_pool2d(x, {.kernel = {3, 3}}),
                    Catch::Contains("kernel=3×3") && Catch::Contains("[1, 2, 3, 1]"));
}

// Σ_l a[…, i, l] b[…, l, j], by definition.
Tensor product(const Tensor& a, const Tensor& b) {
  Variable sum_of;
  for (int64_t l = 0; l < a.extent(-1); l++)
    sum_of = add_defined(sum_of, Variable(a.slice(-1, l, l + 1)) * Variable(b.slice(-2, l, l + 1)));
  return sum_of.value;
}

TEST_CASE("matmul: layouts, broadcasting and derivatives") {
  const auto turn = [](const Tensor& t) { return t.transpose(-2, -1); };
  const Tensor a = random({2, 3, 4, 5}, 12), b = random({2, 3, 5, 6}, 13);
  struct Pair {
    const char* what;
    Tensor a, b;
  };
  for (const auto& [what, left, right] : std::vector<Pair>{
           {"contiguous", a, b},
           {"both transposed", turn(turn(a).clone()), turn(turn(b).clone())},
           {"every other row and column", random({2, 8, 10}, 14).slice(1, 0, 8, 2).slice(2, 1, 10, 2),
            random({2, 10, 6}, 15).slice(1, 0, 10, 2)},
           {"batch broadcast on the left", a.slice(1, 0, 1), b},
           {"batch broadcast on the right", a, b.slice(0, 1, 2)},
           {"one right matrix for all", a, b.slice(0, 0, 1).slice(1, 2, 3)},
           {"a right matrix without batch", a, b.select(0, 0).select(0, 1)},
           {"repeated without copies", a.slice(0, 0, 1).expand({2, 3, 4, 5}), b.slice(1, 0, 1).expand({2, 3, 5, 6})},
           {"repeated rows", random({2, 1, 5}, 16).expand({2, 4, 5}), random({2, 5, 1}, 17).expand({2, 5, 6})},
           {"rows of a permuted batch", random({5, 4, 1}, 18).permute({1, 2, 0}), random({1, 5, 6}, 19)},
           {"outer products", random({3, 4, 1}, 20), random({3, 1, 6}, 21)},
           {"plain matrices", random({4, 5}, 22), random({5, 6}, 23)}}) {
    INFO(what);
    check_close(matmul(left, right).value, product(left, right), 1e-14);
    check_derivatives([&, r = right](const Variable& v) { return matmul(v, r); }, left);
    check_derivatives([&, l = left](const Variable& v) { return matmul(l, v); }, right);
  }
  check_derivatives([](const Variable& v) { return matmul(v, square(v)); }, random({3, 4, 4}, 24));
  CHECK(matmul(random({2, 0}, 0), random({0, 3}, 0)).value.to_vector<double>() == std::vector<double>(6, 0));
  CHECK_THROWS_WITH(matmul(Tensor({2, 0}, DType::int64), Tensor({0, 3}, DType::int64)),
                    Catch::Contains("needs float32 or float64, got int64 [2, 3]"));
  CHECK_THROWS_WITH(matmul(a, a), Catch::Contains("inner extents of [2, 3, 4, 5] and [2, 3, 4, 5] differ"));
}

TEST_CASE("linear: shared and per-sample weights") {
  const int64_t N = 3;
  const Tensor x = random({N, 2, 5}, 25), shared = random({1, 4, 5}, 26), own = random({N, 4, 5}, 27);
  for (const Tensor& w : {shared, own}) {
    check_close(linear(x, w).value, product(x, w.transpose(1, 2)), 1e-14);
    check_derivatives([&](const Variable& v) { return linear(v, w); }, x);
    check_derivatives([&](const Variable& v) { return linear(x, v); }, w);
  }
  CHECK_THROWS_WITH(linear(x, random({2, 4, 5}, 28)), Catch::Contains("do not broadcast"));
  CHECK_THROWS_WITH(linear(x.select(0, 0), shared), Catch::Contains("needs x [N, T, I]"));

  // A per-sample leaf returns what a loop over samples does, for a stack of cotangents too; samples add up to the
  // gradient of a shared weight.
  for (const int64_t tokens : {2, 1}) {
    const Tensor images = x.slice(1, 0, tokens);
    const auto f = [](const Variable& v, const Variable& w) { return softmax(linear(v, w)); };
    Tape all;
    const Variable w = all.per_sample_leaf(shared, N, "w"), y = f(images, w);
    const Tensor c = random(Shape{2} + y.shape(), 29);
    const Tensor rows = all.vjp(y, c, std::vector{w})[0].value;
    REQUIRE(rows.shape() == Shape{2, N, 4, 5});
    for (int64_t n = 0; n < N; n++) {
      Tape one;
      const Variable leaf = one.leaf(shared), yn = f(images.slice(0, n, n + 1), leaf);
      check_close(rows.slice(1, n, n + 1), one.vjp(yn, c.slice(1, n, n + 1), std::vector{leaf})[0].value, 0);
    }
    Tape batch;
    const Variable leaf = batch.leaf(shared);
    check_close(batch.vjp(f(images, leaf), c, std::vector{leaf})[0].value, sum(rows, {1}).value, 1e-14);
    CHECK_THROWS_WITH(matmul(w, reshape(w.constant(), {5, 12})), Catch::Contains("mixes samples"));
  }
}

TEST_CASE("products give the same bits in any batch and with any number of threads") {
  const Tensor x = random({70, 3, 300}, 30).to(DType::float32), w = random({1, 40, 300}, 31).to(DType::float32);
  const auto f = [&](const Tensor& in) {
    const Variable y = linear(in, w);
    return matmul(y, transpose(y, 1, 2)).value;
  };
  const int before = thread_count();
  set_thread_count(1);
  const Tensor one = f(x);
  set_thread_count(3);
  CHECK(f(x).to_vector<float>() == one.to_vector<float>());
  CHECK(f(x.slice(0, 9, 10)).to_vector<float>() == one.slice(0, 9, 10).to_vector<float>());
  CHECK(f(x.slice(0, 9, 70, 7)).to_vector<float>() == one.slice(0, 9, 70, 7).to_vector<float>());
  set_thread_count(before);
}

TEST_CASE("pooling and losses give the same bits in any batch and with any number of threads") {
  const Tensor x = random({8, 9, 9, 40}, 11).to(DType::float32);
  const auto f = [](const Tensor& images) {
    const Variable y = average_pool2d(max_pool2d(images, overlapping), overlapping);
    return log_softmax(reshape(y, {images.extent(0), y.value.elements() / images.extent(0)})).value;
  };
  const int before = thread_count();
  set_thread_count(1);
  const Tensor one = f(x);
  set_thread_count(3);
  CHECK(f(x).to_vector<float>() == one.to_vector<float>());
  CHECK(f(x.slice(0, 5, 6)).to_vector<float>() == one.slice(0, 5, 6).to_vector<float>());
  set_thread_count(before);
}

TEST_CASE("adaptive average pooling takes torch's windows, which may overlap or repeat", "[pool]") {
  const int64_t n = 2, c = 3;
  for (const auto& [h, w, oh, ow] : {std::array<int64_t, 4>{10, 7, 4, 3}, {2, 3, 7, 7}, {8, 6, 4, 3}, {5, 5, 5, 5}}) {
    CAPTURE(h, w, oh, ow);
    const Tensor x = random({n, h, w, c}, 5);
    const auto v = x.to_vector<double>();
    Tensor expected({n, oh, ow, c}, DType::float64);
    double* out = expected.mutable_data<double>();
    for (int64_t s = 0; s < n; s++)
      for (int64_t i = 0; i < oh; i++)
        for (int64_t j = 0; j < ow; j++)
          for (int64_t k = 0; k < c; k++) {
            double total = 0;
            int64_t count = 0;
            for (int64_t a = i * h / oh; a * oh < (i + 1) * h; a++)
              for (int64_t b = j * w / ow; b * ow < (j + 1) * w; b++, count++)
                total += v[static_cast<size_t>(((s * h + a) * w + b) * c + k)];
            *out++ = total / static_cast<double>(count);
          }
    const auto f = [oh = oh, ow = ow](const Variable& y) { return adaptive_average_pool2d(y, oh, ow); };
    check_close(f(x).value, expected, 1e-14);
    if (oh != h) check_derivatives(f, x);
  }
  CHECK_THROWS_WITH(adaptive_average_pool2d(Tensor::zeros({2, 3}), 1, 1), Catch::Contains("[N, H, W, C]"));
}
