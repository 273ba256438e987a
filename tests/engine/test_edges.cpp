// What ops give of nothing, and of what is infinite.
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/ops/convolution.h"
#include "engine/ops/logaddexp.h"
#include "engine/ops/statistics.h"
#include "engine/random.h"
#include "engine/safetensors_index.h"

using namespace fastntk;

TEST_CASE("logaddexp of infinities and of numbers far apart") {
  const double inf = INFINITY;
  const auto of = [](double a, double b, DType dtype) {
    return logaddexp(Tensor::full({1}, a, dtype), Tensor::full({1}, b, dtype)).value.item();
  };
  for (const DType dtype : {DType::float32, DType::float64}) {
    CHECK(of(-inf, 0, dtype) == 0);
    CHECK(of(0, -inf, dtype) == 0);
    CHECK(of(-inf, -inf, dtype) == -inf);
    CHECK(of(inf, 1, dtype) == inf);
    CHECK(of(inf, inf, dtype) == inf);
    CHECK(of(-1e10, 100, dtype) == 100);
    CHECK(std::isnan(of(std::nan(""), 1, dtype)));
    CHECK(of(1, 1, dtype) == Approx(1 + std::log(2.0)));
  }
}

TEST_CASE("over several axes of an empty batch there is an empty batch of maxima") {
  CHECK(max(Tensor::zeros({0, 3, 4}), {1, 2}).shape() == Shape{0, 1, 1});
  CHECK(logsumexp(Tensor::zeros({0, 3, 4}), {1, 2}).shape() == Shape{0, 1, 1});
  CHECK_THROWS_WITH(max(Tensor::zeros({2, 0, 4}), {1, 2}), Catch::Contains("none"));
}

TEST_CASE("no images, each with weights of its own, have no convolutions") {
  const Tensor x = Tensor::zeros({0, 5, 5, 2}), w = Tensor::zeros({0, 3, 2, 3, 3});
  CHECK(conv2d(x, w, {}).value.extent(0) == 0);
}

TEST_CASE("an index of shards has plain values") {
  std::string deep = R"({"metadata":{"a":)";
  for (int i = 0; i < 200000; i++) deep += '[';
  for (int i = 0; i < 200000; i++) deep += ']';
  deep += R"(},"weight_map":{}})";
  CHECK_THROWS_WITH(parse_shard_index(deep, "index"), Catch::Contains("a plain value was expected"));
}
