// The weights of resizing beside PyTorch's, and what resizing must leave alone.
#include "engine/ops/resize.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/random.h"

using namespace fastntk;

namespace {

constexpr auto nearest = Interpolation::nearest, bilinear = Interpolation::bilinear, bicubic = Interpolation::bicubic;

void check_matrix(int64_t in, int64_t out, const ResizeOptions& options, const std::vector<double>& expected) {
  const Tensor matrix = resize_matrix(in, out, options);
  REQUIRE(matrix.shape() == Shape{out, in});
  const std::vector<double> got = matrix.to_vector<double>();
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); i++) {
    CAPTURE(in, out, static_cast<int>(options.interpolation), options.antialias, i);
    CHECK_THAT(got[i], Catch::WithinAbs(expected[i], 1e-12));
  }
}

}  // namespace

// From torch.nn.functional.interpolate(align_corners=False), PyTorch 2, float64.
TEST_CASE("the weights of resizing are PyTorch's", "[resize]") {
  check_matrix(5, 3, {nearest}, {1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0});
  check_matrix(5, 3, {bilinear}, {2. / 3, 1. / 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1. / 3, 2. / 3});
  check_matrix(3, 4, {bilinear}, {1, 0, 0, 0.375, 0.625, 0, 0, 0.625, 0.375, 0, 0, 1});
  check_matrix(5, 3, {bilinear, true},
               {4. / 7, 3. / 7, 0, 0, 0, 0, 2. / 9, 5. / 9, 2. / 9, 0, 0, 0, 0, 3. / 7, 4. / 7});
  check_matrix(5, 3, {bicubic},
               {0.685185185185185, 0.370370370370370, -0.055555555555556, 0, 0, 0, 0, 1, 0, 0, 0, 0, -0.055555555555556,
                0.370370370370370, 0.685185185185185});
  check_matrix(3, 4, {bicubic},
               {1.071777343750, -0.071777343750, 0, 0.360351562500, 0.749511718750, -0.109863281250, -0.109863281250,
                0.749511718750, 0.360351562500, 0, -0.071777343750, 1.071777343750});
  check_matrix(5, 3, {bicubic, true},
               {0.584615384615385, 0.446153846153846, 0, -0.030769230769231, 0, -0.037209302325581, 0.246511627906977,
                0.581395348837209, 0.246511627906977, -0.037209302325581, 0, -0.030769230769231, 0, 0.446153846153846,
                0.584615384615385});
  check_matrix(3, 4, {bicubic, true},
               {1.052238805970149, -0.052238805970149, 0, 0.373246024321796, 0.696913002806361, -0.070159027128157,
                -0.070159027128157, 0.696913002806361, 0.373246024321796, 0, -0.052238805970149, 1.052238805970149});
}

TEST_CASE("resizing keeps constants, and images of the size asked for", "[resize]") {
  for (const bool antialias : {false, true})
    for (const Interpolation interpolation : {bilinear, bicubic})
      for (const auto& [in, out] : {std::pair(14, 24), std::pair(24, 14), std::pair(7, 1), std::pair(224, 28)}) {
        const Tensor matrix = resize_matrix(in, out, {interpolation, antialias});
        for (int64_t i = 0; i < out; i++) {
          double sum = 0;
          for (int64_t j = 0; j < in; j++) sum += matrix.data<double>()[i * in + j];
          CHECK_THAT(sum, Catch::WithinAbs(1, 1e-14));
        }
      }
  const Tensor x = Random(1).normal_tensor({2, 4, 5, 3});
  CHECK(resize(x, 4, 5, {bicubic, true}).value.storage() == x.storage());
}
