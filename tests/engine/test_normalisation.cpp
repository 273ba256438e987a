// What the op tests do not see of batch norm: its side effect, and its two modes beside each other.
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/backend.h"
#include "engine/ops/normalisation.h"
#include "engine/random.h"
#include "engine/reference.h"
#include "engine/tape.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

const Shape image{4, 3, 2, 5};
const Shape row{1, 5};

Array array_of(const Tensor& t) {
  Array a(t.shape());
  a.values = t.to_vector<double>();
  return a;
}

}  // namespace

TEST_CASE("batch norm in train mode moves the running statistics as torch does, once per forward") {
  const Random random(31);
  const Tensor x = random.normal_tensor(image, DType::float64);
  const Tensor gamma = random.stream(1).normal_tensor(row, DType::float64),
               beta = random.stream(2).normal_tensor(row, DType::float64);
  const Tensor mean = random.stream(3).normal_tensor({5}, DType::float64);
  const Tensor variance = random.stream(4).uniform_tensor({5}, DType::float64);
  const Tensor mean_before = mean.clone(), variance_before = variance.clone();
  const double momentum = 0.3;

  Tape tape;
  const Variable leaf = tape.leaf(x);
  const Variable y = batch_norm_train(leaf, gamma, beta, mean, variance, momentum, 1e-5);
  const Array batch_mean = channel_mean(array_of(x)), batch_variance = channel_variance(array_of(x));
  const double n = 24;
  for (size_t c = 0; c < 5; c++) {
    CHECK(mean.to_vector<double>()[c] ==
          Approx(0.7 * mean_before.to_vector<double>()[c] + 0.3 * batch_mean.values[c]).epsilon(1e-12));
    CHECK(variance.to_vector<double>()[c] ==
          Approx(0.7 * variance_before.to_vector<double>()[c] + 0.3 * batch_variance.values[c] * n / (n - 1))
              .epsilon(1e-12));
  }
  // The linear map is that of the batch's own statistics, and applying it moves nothing.
  const Tensor after = mean.clone();
  const std::pair<Variable, Variable> tangent{leaf, Tensor::full(image, 1, DType::float64)};
  for (const double v : tape.jvp({&tangent, 1}, y).value.to_vector<double>()) CHECK(std::abs(v) < 1e-12);
  tape.vjp(y, x, {&leaf, 1});
  CHECK(mean.to_vector<double>() == after.to_vector<double>());
}

TEST_CASE("eval mode with the batch's own statistics gives the values of train mode") {
  const Random random(37);
  for (const DType dtype : {DType::float32, DType::float64}) {
    const Tensor x = random.normal_tensor(image, dtype);
    const Tensor gamma = random.stream(1).normal_tensor(row, dtype), beta = random.stream(2).normal_tensor(row, dtype);
    Tensor mean = Tensor::zeros({5}, dtype), variance = Tensor::full({5}, 1, dtype);
    const Tensor y = batch_norm_train(x, gamma, beta, mean, variance, 1, 1e-3).value;  // momentum 1: the batch's own
    variance = Tensor::from<double>({5}, channel_variance(array_of(x.to(DType::float64))).values).to(dtype);
    const Tensor z = batch_norm_eval(x, gamma, beta, mean, variance, 1e-3).value;
    const auto a = y.to(DType::float64).to_vector<double>(), b = z.to(DType::float64).to_vector<double>();
    for (size_t i = 0; i < a.size(); i++) CHECK(std::abs(a[i] - b[i]) < (dtype == DType::float32 ? 1e-5 : 1e-12));
  }
}

TEST_CASE("batch norm in train mode needs more than one value per channel") {
  CHECK_THROWS_WITH(batch_norm_train(Tensor::zeros({1, 1, 1, 5}), Tensor::zeros(row), Tensor::zeros(row),
                                     Tensor::zeros({5}), Tensor::zeros({5}), 0.1, 1e-5),
                    Catch::Contains("more than one value per channel, got x [1, 1, 1, 5]"));
}

TEST_CASE("of a channel with what is no number mean and variance are none") {
  Tensor x = Random(3).normal_tensor({4, 1, 1, 5});
  x.slice(0, 2, 3).slice(3, 1, 2).fill(INFINITY);
  for (const Device device : {Device::cpu, Device::emu}) {
    Tensor mean({5}, DType::float32, device), variance({5}, DType::float32, device);
    backend(device).channel_moments(x.reshape({4, 5}).to(device), mean, variance);
    const std::vector<float> v = variance.to_vector<float>();
    CHECK(std::isnan(v[1]));
    CHECK(std::isfinite(v[0]));
  }
}
