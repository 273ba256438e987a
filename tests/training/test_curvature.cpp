#include "training/curvature.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/parallel.h"
#include "engine/random.h"
#include "models/layers.h"
#include "models/registry.h"
#include "models/vit.h"
#include "training/gradient.h"

using namespace fastntk;

namespace {

Samples random_samples(int64_t n, const Shape& shape, int64_t classes) {
  Samples s;
  s.inputs = Random(5).normal_tensor(Shape{n} + shape, DType::float64);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < n; i++) labels.push_back(i % classes), s.ids.push_back(i);
  s.labels = Tensor::from<int64_t>({n}, labels);
  return s;
}

// A network of smooth units, so that the whole Hessian is at work.
class Smooth final : public Module {
 public:
  Smooth(int64_t in, int64_t hidden, int64_t classes)
      : first_(add_child("0", std::make_unique<Linear>(in, hidden))),
        second_(add_child("1", std::make_unique<Linear>(hidden, classes))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    return second_.forward(pass, exp(negate(square(first_.forward(pass, x)))));
  }

 private:
  const Linear &first_, &second_;
};

std::unique_ptr<Module> network(const std::string& kind) {
  if (kind == "smooth") {
    auto m = std::make_unique<Smooth>(6, 9, 4);
    m->initialise(3);
    m->to(DType::float64);
    return m;
  }
  if (kind == "vit") {
    auto m = std::make_unique<VisionTransformer>(VitShape{.image_height = 8,
                                                          .image_width = 8,
                                                          .patch = 4,
                                                          .depth = 2,
                                                          .block = {.width = 8, .heads = 2, .hidden = 16},
                                                          .channels = 2,
                                                          .classes = 4});
    m->initialise(3);
    m->to(DType::float64);
    return m;
  }
  auto m = make_model({.architecture = "resnet20", .classes = 4, .channels = 2, .options = {{"width", "4"}}}, 3).module;
  m->to(DType::float64);
  // Statistics that are not 0 and 1.
  uint64_t stream = 0;
  for (auto& [name, b] : m->named_buffers()) {
    if (!is_floating(b->value.dtype())) continue;
    const Tensor u = Random(8).stream(stream++).uniform_tensor(b->value.shape(), DType::float64);
    b->value.copy_from(name.ends_with("var") ? shift(u, 0.5).value : shift(u, -0.5).value);
  }
  return m;
}

Tensor flat_gradient(const Module& model, const Subset& subset, const Samples& s, const Loss& loss, double smoothing) {
  Tensor out({subset.size()}, DType::float64);
  const BatchGradient g = batch_gradient(model, subset, Mode::eval, s.inputs, s.labels, loss, smoothing);
  for (size_t k = 0; k < g.gradient.size(); k++) {
    const auto& e = subset.entries[k];
    out.slice(0, e.offset, e.offset + e.shape.elements()).copy_from(g.gradient[k].reshape({e.shape.elements()}));
  }
  return out;
}

double norm(const Tensor& t) {
  double sum = 0;
  for (const double x : t.to_vector<double>()) sum += x * x;
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("Hessian-vector products of networks are differences of the gradient") {
  for (const std::string kind : {"smooth", "resnet20", "vit"})
    for (const char* name : {"ce", "mse"})
      for (const char* what : {"all", "bias"}) {
        CAPTURE(kind, name, what);
        const auto model = network(kind);
        const Subset subset = choose(*model, what);
        const Samples s = random_samples(10, kind == "smooth" ? Shape{6} : Shape{8, 8, 2}, 4);
        const Loss& loss = find_loss(name);
        const double smoothing = loss.name == "ce" ? 0.1 : 0;
        const Tensor v = Random(9).normal_tensor({2, subset.size()}, DType::float64);
        const Tensor product = hvp(*model, subset, s, loss, v, smoothing);
        REQUIRE(product.shape() == v.shape());
        const Tensor theta = gather(*model, subset);
        for (int64_t k = 0; k < 2; k++) {
          const double h = 2e-6;
          const auto at = [&](double by) {
            scatter(*model, subset, add(theta, scale(v.select(0, k), by)).value);
            return flat_gradient(*model, subset, s, loss, smoothing);
          };
          const Tensor expected =
              scale(scale(subtract(at(h), at(-h)), 8) - subtract(at(2 * h), at(-2 * h)), 1 / (12 * h)).value;
          scatter(*model, subset, theta);
          CHECK(norm(subtract(product.select(0, k), expected).value) < 1e-7 * norm(expected));
        }
      }
}

TEST_CASE("products with the curvature have the same bits on any number of threads, and are symmetric") {
  const auto model = network("resnet20");
  const Subset subset = choose(*model, "bn+head");
  const Samples s = random_samples(20, {8, 8, 2}, 4);
  const Loss& ce = find_loss("ce");
  const Tensor v = Random(9).normal_tensor({subset.size()}, DType::float64);
  const Tensor w = Random(10).normal_tensor({subset.size()}, DType::float64);
  const int before = thread_count();
  for (const bool gauss_newton : {false, true}) {
    const auto product = [&](const Tensor& d) {
      return gauss_newton ? ggn_vp(*model, subset, s, ce, d) : hvp(*model, subset, s, ce, d);
    };
    set_thread_count(1);
    const auto one = product(v).to_vector<double>();
    set_thread_count(3);
    const Tensor three = product(v);
    set_thread_count(before);
    CHECK(one == three.to_vector<double>());
    const auto dot = [](const Tensor& a, const Tensor& b) {
      return matmul(a.reshape({1, a.elements()}), b.reshape({b.elements(), 1})).value.item();
    };
    CHECK(dot(w, three) == Approx(dot(v, product(w))).epsilon(1e-10));
    if (gauss_newton) CHECK(dot(v, three) > 0);
  }
}

TEST_CASE("curvature refuses directions and samples that do not fit") {
  const auto model = network("smooth");
  const Subset all = choose(*model, "all");
  const Samples s = random_samples(3, {6}, 4);
  CHECK_THROWS_WITH(hvp(*model, all, s, find_loss("ce"), Tensor::zeros({4}, DType::float64)),
                    "a Hessian-vector product needs a direction [103] or a stack of them, got [4]");
  Samples unlabelled = s;
  unlabelled.labels = {};
  CHECK_THROWS_WITH(ggn_vp(*model, all, unlabelled, find_loss("ce"), Tensor::zeros({103}, DType::float64)),
                    "a Gauss-Newton product needs samples with labels");
}
