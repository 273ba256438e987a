// How far two tensors are from one another.
#pragma once
#include <catch2/catch.hpp>
#include <cmath>

#include "engine/tensor.h"

namespace fastntk::test {

/// |a − b| / |b| as vectors, wherever they are.
inline double distance(const Tensor& a, const Tensor& b) {
  const auto values = [](const Tensor& t) { return t.to(Device::cpu).to(DType::float64).to_vector<double>(); };
  const auto x = values(a), y = values(b);
  REQUIRE(a.shape() == b.shape());
  double difference = 0, size = 0;
  for (size_t i = 0; i < x.size(); i++) difference += std::pow(x[i] - y[i], 2), size += y[i] * y[i];
  return std::sqrt(difference / size);
}

}  // namespace fastntk::test
