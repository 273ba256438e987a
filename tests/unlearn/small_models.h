// Models and sets small enough to be computed a second time by plain loops, in float64.
#pragma once
#include <Eigen/Dense>
#include <cmath>
#include <memory>

#include "datasets/samples.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"
#include "engine/random.h"
#include "models/layers.h"
#include "models/registry.h"
#include "unlearn/rows.h"

namespace fastntk {

inline Eigen::VectorXd eigen(const Tensor& v) {
  const std::vector<double> values = v.to(DType::float64).to_vector<double>();
  return Eigen::Map<const Eigen::VectorXd>(values.data(), static_cast<long>(values.size()));
}
inline Eigen::MatrixXd eigen_matrix(const Tensor& m, int64_t rows) {
  const Eigen::VectorXd values = eigen(m);
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const RowMajor>(values.data(), rows, values.size() / rows);
}
inline Tensor tensor(const Eigen::VectorXd& v) {
  return Tensor::from<double>({v.size()}, std::vector<double>(v.data(), v.data() + v.size()));
}
inline double relative_error(const Eigen::MatrixXd& value, const Eigen::MatrixXd& expected) {
  return (value - expected).norm() / expected.norm();
}
inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.to(DType::float64).to_vector<double>() == b.to(DType::float64).to_vector<double>();
}

/// n normal inputs of this shape with labels 0, 1, …, C−1, 0, … .
inline Samples random_samples(int64_t n, const Shape& shape, int64_t classes, uint64_t seed,
                              DType dtype = DType::float64) {
  Samples s;
  s.inputs = Random(seed).normal_tensor(Shape{n} + shape, dtype);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < n; i++) labels.push_back(i % classes), s.ids.push_back(i);
  s.labels = Tensor::from<int64_t>({n}, labels);
  return s;
}

/// A set whose Jacobian and logits are normal numbers: as good as any for the algebra of the update rules.
inline LinearisedSet random_set(int64_t n, int64_t classes, int64_t parameters, uint64_t seed,
                                DType dtype = DType::float64) {
  return {Random(seed, 1).normal_tensor({n, classes, parameters}, dtype),
          Random(seed, 2).normal_tensor({n, classes}, dtype), random_samples(n, {}, classes, seed).labels};
}

/// Features [N, F] → max(0, V x + c) frozen ("hidden"), then logits ("head").
class FrozenFeatures final : public Module {
 public:
  FrozenFeatures(int64_t in, int64_t features, int64_t classes)
      : hidden_(add_child("hidden", std::make_unique<Linear>(in, features))),
        head_(add_child("head", std::make_unique<Linear>(features, classes))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    return head_.forward(pass, relu(hidden_.forward(pass, x)));
  }
  std::string head() const override { return "head"; }

 private:
  Linear &hidden_, &head_;
};

/// Batch norm over the features, then a linear map ("fc").
class NormedLinear final : public Module {
 public:
  NormedLinear(int64_t features, int64_t classes)
      : norm_(add_child("bn", std::make_unique<BatchNorm2d>(features))),
        fc_(add_child("fc", std::make_unique<Linear>(features, classes))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    return fc_.forward(pass, norm_.forward(pass, x));
  }
  std::string head() const override { return "fc"; }

 private:
  BatchNorm2d& norm_;
  Linear& fc_;
};

/// f = √(2/m) Σⱼ aⱼ max(0, wⱼᵀx): one hidden layer in the parametrisation of the infinite-width limit.
class WideLayer final : public Module {
 public:
  WideLayer(int64_t in, int64_t width)
      : scale_(std::sqrt(2.0 / static_cast<double>(width))),
        w_(add_parameter("w", {width, in}, Initial::normal(1))),
        a_(add_parameter("a", {1, width}, Initial::constant(1))) {}
  Variable forward(const Pass& pass, const Variable& x) const override {
    const Variable hidden = relu(linear(reshape(x, {x.extent(0), 1, x.extent(1)}), pass.parameter(w_)));
    return reshape(scale(linear(hidden, pass.parameter(a_)), scale_), {x.extent(0), 1});
  }

 private:
  double scale_;
  Parameter &w_, &a_;
};

/// A model in float64 with its initial values.
template <class M, class... Sizes>
std::unique_ptr<M> make_double(uint64_t seed, Sizes... sizes) {
  auto model = std::make_unique<M>(sizes...);
  model->to(DType::float64);
  model->initialise(seed);
  return model;
}

}  // namespace fastntk
