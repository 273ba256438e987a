#include "training/augment.h"

#include <catch2/catch.hpp>

#include "engine/parallel.h"

using namespace fastntk;
using Catch::Contains;

namespace {

constexpr int64_t H = 5, W = 6, C = 2;

Tensor images(int64_t n, DType dtype = DType::float32) { return Random(7).uniform_tensor({n, H, W, C}, dtype); }

// Image i of `from` flipped and moved, by plain loops.
std::vector<float> moved(const Tensor& from, int64_t i, bool flip, int64_t dy, int64_t dx) {
  const std::vector<float> x = from.select(0, i).to_vector<float>();
  std::vector<float> y(x.size(), 0);
  for (int64_t r = 0; r < H; r++)
    for (int64_t c = 0; c < W; c++)
      for (int64_t k = 0; k < C; k++) {
        const int64_t row = r + dy, column = c + dx;
        if (row < 0 || row >= H || column < 0 || column >= W) continue;
        y[static_cast<size_t>((r * W + c) * C + k)] =
            x[static_cast<size_t>((row * W + (flip ? W - 1 - column : column)) * C + k)];
      }
  return y;
}

}  // namespace

TEST_CASE("augmented images are flips and shifts, and all of them occur") {
  constexpr int64_t n = 400;
  const Tensor in = images(n), out = augment(in, {.flip = true, .crop = 1}, Random(3), 0);
  int seen[2][3][3] = {};
  for (int64_t i = 0; i < n; i++) {
    const std::vector<float> image = out.select(0, i).to_vector<float>();
    int matches = 0;
    for (const bool flip : {false, true})
      for (int64_t dy = -1; dy <= 1; dy++)
        for (int64_t dx = -1; dx <= 1; dx++)
          if (image == moved(in, i, flip, dy, dx)) matches++, seen[flip][dy + 1][dx + 1]++;
    REQUIRE(matches == 1);
  }
  for (const auto& plane : seen)
    for (const auto& row : plane)
      for (const int count : row) CHECK(count > 5);  // 22 expected
}

TEST_CASE("an image's change depends on its number alone") {
  const Tensor in = images(12);
  const Augmentation both{.flip = true, .crop = 2};
  const Tensor whole = augment(in, both, Random(3), 100);
  const int before = thread_count();
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    CHECK(augment(in, both, Random(3), 100).to_vector<float>() == whole.to_vector<float>());
  }
  set_thread_count(before);
  for (int64_t i = 0; i < 12; i++)
    CHECK(augment(in.slice(0, i, i + 1), both, Random(3), 100 + static_cast<uint64_t>(i)).to_vector<float>() ==
          whole.select(0, i).to_vector<float>());
  CHECK(augment(in, both, Random(4), 100).to_vector<float>() != whole.to_vector<float>());
  CHECK(augment(in, both, Random(3), 101).to_vector<float>() != whole.to_vector<float>());
}

TEST_CASE("nothing asked for is nothing done, and a shift beyond the image leaves zeros") {
  const Tensor in = images(3, DType::float64);
  CHECK(augment(in, {}, Random(3), 0).data<double>() == in.data<double>());
  const Tensor flipped = augment(in, {.flip = true}, Random(3), 0);
  CHECK(flipped.dtype() == DType::float64);
  const Tensor shifted = augment(in, {.crop = 50}, Random(3), 0);
  int zeros = 0;
  for (int64_t i = 0; i < 3; i++) {
    const std::vector<double> pixels = shifted.select(0, i).to_vector<double>();
    zeros += std::ranges::all_of(pixels, [](double x) { return x == 0; });
  }
  CHECK(zeros > 0);
  CHECK_THROWS_AS(augment(in, {.crop = -1}, Random(3), 0), UsageError);
  CHECK_THROWS_WITH(augment(in, {.crop = -1}, Random(3), 0), Contains("must not be negative, got -1"));
  CHECK_THROWS_WITH(augment(Tensor::zeros({4, 3}), {.flip = true}, Random(3), 0), Contains("[4, 3]"));
}
