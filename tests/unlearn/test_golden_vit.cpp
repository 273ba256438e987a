// A small vision transformer against timm's: see tests/golden/make_vit.py.
#include "golden/golden.h"

#include <catch2/catch.hpp>

#include "models/checkpoint.h"
#include "models/vit.h"
#include "training/curvature.h"
#include "training/gradient.h"
#include "unlearn/jacobian.h"

using namespace fastntk;
using test::relative_error;

TEST_CASE("logits, rows, gradient, JVP and HVP of a small vision transformer are timm's") {
  const test::Golden golden("golden_vit.safetensors");
  for (const DType dtype : {DType::float32, DType::float64}) {
    CAPTURE(name_of(dtype));
    const double tolerance = test::golden_tolerance(dtype);
    VisionTransformer model({.image_height = 12,
                             .image_width = 8,
                             .patch = 4,
                             .depth = 2,
                             .block = {.width = 12, .heads = 3, .hidden = 48},
                             .channels = 2,
                             .classes = 5});
    model.to(dtype);
    load_state(model, golden.with_prefix("model."), "the golden file");
    Samples s{golden("input").to(dtype), golden("labels"), {0, 1, 2, 3}};

    const Jacobian j = jacobian(model, choose(model, "ln+head"), s.inputs);
    CHECK(relative_error(j.logits, golden("logits")) < tolerance);
    CHECK(relative_error(j.rows, golden("jacobian")) < tolerance);

    const Subset all = choose(model, "all");
    const Tensor v = golden("direction").to(DType::float64);
    CHECK(relative_error(directional_derivative(model, all, s.inputs, v).derivative, golden("jvp")) < tolerance);
    const Loss& ce = find_loss("ce");
    const auto mean = [](const Tensor& sum) {
      Tensor out = sum.clone();
      for (int64_t i = 0; i < out.elements(); i++) out.mutable_data<double>()[i] /= 4;
      return out;
    };
    Tensor gradient({all.size()}, DType::float64);
    const BatchGradient g = batch_gradient(model, all, Mode::eval, s.inputs, s.labels, ce);
    for (size_t k = 0; k < g.gradient.size(); k++) {
      const int64_t from = all.entries[k].offset, count = all.entries[k].shape.elements();
      gradient.slice(0, from, from + count).copy_from(g.gradient[k].reshape({count}).to(DType::float64));
    }
    CHECK(relative_error(mean(gradient), golden("gradient")) < tolerance);
    CHECK(relative_error(mean(hvp(model, all, s, ce, v)), golden("hvp")) < tolerance);
  }
}
