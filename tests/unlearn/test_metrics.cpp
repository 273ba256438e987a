#include "unlearn/metrics.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/random.h"

using namespace fastntk;
using Catch::Contains;

namespace {

Tensor logits(int64_t n, const std::vector<double>& values) {
  return Tensor::from<double>({n, static_cast<int64_t>(values.size()) / n}, values);
}
Tensor labels(const std::vector<int64_t>& values) {
  return Tensor::from<int64_t>({static_cast<int64_t>(values.size())}, values);
}

}  // namespace

TEST_CASE("accuracy counts the first of equal logits") {
  const Tensor f = logits(4, {1, 0, 0, 0, 2, 1, 3, 3, 0, -1, -2, -1});
  CHECK(accuracy(f, labels({0, 1, 0, 0})) == 1);
  CHECK(accuracy(f, labels({0, 1, 1, 2})) == 0.5);
  CHECK(accuracy(f.to(DType::float32), labels({1, 2, 2, 1})) == 0);
}

TEST_CASE("losses have their closed form") {
  const double l2 = std::log(2.0), l3 = std::log(3.0);
  // softmax (¼, ¾) and (½, ½); large logits must not overflow.
  const Tensor f = logits(2, {1000, 1000 + l3, -5, -5});
  CHECK(mean_cross_entropy(f, labels({0, 1})) == Approx((std::log(4.0) + l2) / 2));
  CHECK(mean_cross_entropy(f, labels({1, 0})) == Approx((std::log(4.0) - l3 + l2) / 2));
  CHECK(mean_squared_error(logits(2, {1, 2, 0, -1}), labels({0, 1})) == Approx((0.5 * 4 + 0.5 * 4) / 2));
  const std::vector<double> p = softmax_rows(f);
  CHECK(p[0] == Approx(0.25));
  CHECK(p[1] == Approx(0.75));
  CHECK(p[2] == Approx(0.5));
}

TEST_CASE("Jensen–Shannon divergence and activation distance: closed form, bounds, symmetry") {
  const double l2 = std::log(2.0), l3 = std::log(3.0);
  const Tensor p = logits(1, {0, l3}), q = logits(1, {0, 0});  // (¼, ¾) and (½, ½), mean (⅜, ⅝)
  const double expected =
      0.5 * (0.25 * std::log(2.0 / 3) + 0.75 * std::log(1.2)) + 0.5 * (0.5 * std::log(4.0 / 3) + 0.5 * std::log(0.8));
  CHECK(jensen_shannon(p, q) == Approx(expected));
  CHECK(jensen_shannon(p, p) == 0);
  CHECK(activation_distance(p, q) == Approx(0.5));
  CHECK(activation_distance(p, p) == 0);

  // Models that agree on nothing: a probability that underflows to 0 contributes 0.
  const Tensor left = logits(1, {4000, 0}), right = logits(1, {0, 4000});
  CHECK(jensen_shannon(left, right) == Approx(l2));
  CHECK(activation_distance(left, right) == Approx(2));

  const Tensor a = Random(1).normal_tensor({50, 7}), b = Random(2).normal_tensor({50, 7});
  CHECK(jensen_shannon(a, b) == jensen_shannon(b, a));
  CHECK(jensen_shannon(a, b) > 0);
  CHECK(jensen_shannon(a, b) < l2);
  CHECK(activation_distance(a, b) == activation_distance(b, a));
  CHECK(activation_distance(a, b) < 2);
}

TEST_CASE("distances between parameter vectors") {
  CHECK(norm({3, 4}) == 5);
  CHECK(distance({1, 1}, {4, 5}) == 5);
  CHECK(cosine({1, 0}, {1, 1}) == Approx(std::sqrt(0.5)));
  CHECK(cosine({1, 2}, {-2, -4}) == Approx(-1));
  CHECK(cosine({0, 0}, {1, 2}) == 0);
  CHECK(weight_distance({0, 5}, {3, 1}, {3, 11}) == Approx(0.5));
  CHECK(weight_distance({3, 1}, {3, 1}, {3, 11}) == 0);
  CHECK(std::isnan(weight_distance({1, 2}, {3, 4}, {3, 4})));
  CHECK_THROWS_WITH(distance({1}, {1, 2}), Contains("1 and 2 parameters"));
  CHECK_THROWS_WITH(cosine({1}, {1, 2}), Contains("1 and 2 parameters"));
}

TEST_CASE("of an empty set there is nothing to say, and shapes that do not fit are refused") {
  const Tensor none = Tensor::zeros({0, 3}), nobody = Tensor::zeros({0}, DType::int64);
  CHECK(std::isnan(accuracy(none, nobody)));
  CHECK(std::isnan(mean_cross_entropy(none, nobody)));
  CHECK(std::isnan(mean_squared_error(none, nobody)));
  CHECK(std::isnan(jensen_shannon(none, none)));
  CHECK(std::isnan(activation_distance(none, none)));
  CHECK_THROWS_WITH(accuracy(Tensor::zeros({2, 3}), labels({0})), Contains("[2, 3] and [1]"));
  CHECK_THROWS_WITH(jensen_shannon(Tensor::zeros({2, 3}), Tensor::zeros({3, 2})), Contains("the same samples"));
}

TEST_CASE("what is not a number stays one, and a label that there is no logit of is refused") {
  const double nan = std::nan("");
  const Tensor good = Tensor::from<double>({1, 2}, std::vector<double>{1, 2}),
               bad = Tensor::from<double>({1, 2}, std::vector<double>{nan, 2}),
               far = Tensor::from<double>({1, 2}, std::vector<double>{800, 0});
  CHECK(std::isnan(jensen_shannon(good, bad)));
  CHECK(std::isnan(jensen_shannon(bad, bad)));
  CHECK(jensen_shannon(far, Tensor::from<double>({1, 2}, std::vector<double>{-744.4, 0})) <= std::log(2.0));
  CHECK_THROWS_WITH(mean_cross_entropy(good, labels({2})), Contains("class 2"));
}
