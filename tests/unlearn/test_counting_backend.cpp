// Work is counted by family while it is done, and changes nothing.
#include <catch2/catch.hpp>

#include "engine/counting_backend.h"
#include "engine/ops/convolution.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/random.h"
#include "models/registry.h"
#include "unlearn/jacobian.h"

using namespace fastntk;

TEST_CASE("operations and bytes of products and convolutions", "[counting]") {
  const Tensor x = Random(1).normal_tensor({2, 5, 7}), w = Random(2).normal_tensor({1, 3, 7});
  const Tensor image = Random(3).normal_tensor({2, 6, 6, 4}), kernel = Random(4).normal_tensor({1, 8, 4, 3, 3});
  const WorkCounter counter;
  CHECK_THROWS_WITH(WorkCounter(), Catch::Contains("already"));
  static_cast<void>(linear(Variable(x), Variable(w)));
  static_cast<void>(conv2d(Variable(image), Variable(kernel), {.padding = {1, 1}}));
  const auto work = counter.work();
  REQUIRE(work.contains("gemm"));
  CHECK(work.at("gemm").launches == 1);
  CHECK(work.at("gemm").flops == 2.0 * 2 * 5 * 7 * 3);
  CHECK(work.at("gemm").bytes == 4.0 * (2 * 5 * 7 + 3 * 7 + 2 * 5 * 3));
  REQUIRE(work.contains("convolution"));
  CHECK(work.at("convolution").flops == 2.0 * 2 * 36 * 8 * 4 * 9);
  CHECK(work.at("convolution").bytes == 4.0 * (2 * 36 * 4 + 8 * 4 * 9 + 2 * 36 * 8));
}

TEST_CASE("counting changes no bit of a Jacobian, and ends", "[counting]") {
  for (const char* const architecture : {"resnet20", "vit_tiny_patch16_224"}) {
    const bool transformer = std::string(architecture) != "resnet20";
    ModelConfig config{
        .architecture = architecture, .classes = 3, .channels = 3, .image_height = 32, .image_width = 32};
    config.options = transformer ? std::map<std::string, std::string>{{"prompts", "2"}, {"depth", "2"}}
                                 : std::map<std::string, std::string>{{"width", "4"}};
    const Model model = make_model(config, 1);
    const Subset subset = choose(*model, transformer ? "prompt" : "bn");
    const Tensor x = Random(5).normal_tensor({3, 32, 32, 3});
    const Jacobian plain = jacobian(*model, subset, x);
    std::map<std::string, KernelWork> work;
    {
      const WorkCounter counter;
      const Jacobian counted = jacobian(*model, subset, x, {.tile = 3});
      CHECK(counted.rows.to_vector<float>() == plain.rows.to_vector<float>());
      work = counter.work();
    }
    const char* const heaviest = transformer ? "gemm" : "convolution, input gradient";
    REQUIRE(work.contains(heaviest));
    for (const auto& [family, w] : work) {
      INFO(family);
      CHECK(w.launches > 0);
      CHECK(w.bytes > 0);
      CHECK(w.flops <= work.at(heaviest).flops);
    }
    const double before = work.at(heaviest).flops;
    static_cast<void>(jacobian(*model, subset, x));
    const WorkCounter again;
    CHECK(again.work().empty());
    CHECK(before > 0);
  }
}
