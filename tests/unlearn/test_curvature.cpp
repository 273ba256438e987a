// Products with the curvature against the matrix that the solvers form from Jacobian rows.
#include <catch2/catch.hpp>

#include "training/curvature.h"
#include "unlearn/jacobian.h"
#include "unlearn/rows.h"
#include "unlearn/small_models.h"

using namespace fastntk;

TEST_CASE("the Gauss-Newton product is Σ Jᵢᵀ Λᵢ Jᵢ v for both losses") {
  const Model model = [] {
    Model m = make_model({.architecture = "resnet20", .classes = 5, .channels = 1, .options = {{"width", "4"}}}, 4);
    m->to(DType::float64);
    return m;
  }();
  const Subset subset = choose(*model, "bn+head");
  const Samples samples = random_samples(11, {10, 10, 1}, 5, 2);
  const Jacobian j = jacobian(*model, subset, samples.inputs);
  const LinearisedSet set{j.rows, j.logits, samples.labels};
  const Tensor v = Random(3).normal_tensor({2, subset.size()}, DType::float64);
  for (const char* name : {"ce", "mse"}) {
    CAPTURE(name);
    const Loss& loss = find_loss(name);
    const Tensor product = ggn_vp(*model, subset, samples, loss, v);
    const Eigen::MatrixXd matrix =
        eigen_matrix(weighted_gram(set, all_positions(11), loss, j.logits).dense(), subset.size());
    for (int64_t k = 0; k < 2; k++)
      CHECK(relative_error(eigen(product.select(0, k)), matrix * eigen(v.select(0, k))) < 1e-11);
  }
}
