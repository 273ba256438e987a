#include <catch2/catch.hpp>

#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/tape.h"

using namespace fastntk;

TEST_CASE("the derivative of a product of sums, both ways") {
  Tape tape;
  const Variable x = tape.leaf(Tensor::from<double>({2, 2}, {1, 2, 3, 4}), "x");
  const Variable y = sum(square(x) * x);  // Σ x³
  REQUIRE(y.value.item() == 100);
  const Variable c = tape.vjp(y, Tensor::scalar(1, DType::float64), std::vector{x})[0];
  CHECK(c.value.to_vector<double>() == std::vector<double>{3, 12, 27, 48});
  const std::pair<Variable, Variable> tangent{x, Tensor::from<double>({2, 2}, {1, 0, 0, 1})};
  CHECK(tape.jvp(std::span(&tangent, 1), y).value.item() == 51);
  // The vjp recorded and differentiated again: the Hessian diag(6x) times a tangent.
  const Variable g = tape.vjp(y, Tensor::scalar(1, DType::float64), std::vector{x}, true)[0];
  CHECK(tape.jvp(std::span(&tangent, 1), g).value.to_vector<double>() == std::vector<double>{6, 0, 0, 24});
}

TEST_CASE("stacked cotangents and per-sample leaves come out of one sweep") {
  Tape tape;
  const Variable w = tape.per_sample_leaf(Tensor::from<double>({1, 2}, {3, 5}), 3, "w");
  const Tensor x = Tensor::from<double>({3, 2}, {1, 2, 3, 4, 5, 6});
  const Variable y = relu(w * x);
  const Tensor seed = Tensor::from<double>({2, 3, 2}, {1, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1});
  const Tensor c = tape.vjp(y, seed, std::vector{w})[0].value;
  CHECK(c.shape() == Shape{2, 3, 2});
  CHECK(c.to_vector<double>() == std::vector<double>{1, 0, 3, 0, 5, 0, 0, 2, 0, 4, 0, 6});
  CHECK_THROWS_WITH(sum(y, {0}), Catch::Contains("mixes samples"));
}

TEST_CASE("a NaN is traced to the record that made it") {
  Tape tape(Tape::Options{.trace_non_finite = true});
  const Variable x = tape.leaf(Tensor::from<double>({2}, {1, -1}), "x");
  const Variable y = scale(x, 2);
  CHECK_THROWS_WITH(log(y),
                    Catch::Contains("record 1") && Catch::Contains("log on [2]") && Catch::Contains("element 1"));
}

TEST_CASE("a tangent or cotangent that is on the tape itself is taken as a constant") {
  Tape tape;
  const Variable x = tape.leaf(Tensor::from<double>({2}, std::vector<double>{2, 3}));
  const Variable y = x * x * x;
  const std::vector<Variable> leaves = {x};
  const size_t records = tape.records().size();
  const auto g = tape.vjp(y, y, leaves)[0].value.to_vector<double>();
  CHECK(g == std::vector<double>{3 * 4 * 8, 3 * 9 * 27});
  CHECK(tape.jvp({{{x, x}}}, y).value.to_vector<double>() == std::vector<double>{3 * 8, 3 * 27});
  CHECK(tape.records().size() == records);
}
