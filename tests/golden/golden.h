// Values that PyTorch computed, from the files that the scripts beside this one make. Header only.
#pragma once
#include <catch2/catch.hpp>
#include <cmath>
#include <string>

#include "engine/ops/convolution.h"
#include "engine/safetensors.h"
#include "models/checkpoint.h"

namespace fastntk::test {

/// One file of tests/golden/.
class Golden {
 public:
  explicit Golden(const std::string& name)
      : file_(SafeTensors::load(std::string(FASTNTK_SOURCE_DIR "/tests/golden/") + name)) {}
  Tensor operator()(const std::string& name) const {
    const Tensor* const found = file_.find(name);
    INFO(name);
    REQUIRE(found);
    return *found;
  }
  /// The tensors whose names begin with `prefix`, without it.
  NamedTensors with_prefix(const std::string& prefix) const {
    NamedTensors all;
    for (const auto& [name, tensor] : file_.tensors)
      if (name.starts_with(prefix)) all.emplace_back(name.substr(prefix.size()), tensor);
    return all;
  }

 private:
  SafeTensors file_;
};

/// ‖a − b‖ / ‖b‖
inline double relative_error(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to(DType::float64).to_vector<double>(), y = b.to(DType::float64).to_vector<double>();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); i++) difference += (x[i] - y[i]) * (x[i] - y[i]), norm += y[i] * y[i];
  return std::sqrt(difference / norm);
}

/// What two correct programs may differ by.
inline double golden_tolerance(DType dtype) { return dtype == DType::float32 ? 1e-5 : 1e-12; }

/// Winograd's algorithm rounds too coarsely for these bounds.
struct ExactConvolution {
  const ConvolutionAlgorithm before = convolution_algorithm();
  ExactConvolution() { set_convolution_algorithm(ConvolutionAlgorithm::exact); }
  ~ExactConvolution() { set_convolution_algorithm(before); }
  ExactConvolution(const ExactConvolution&) = delete;
  ExactConvolution& operator=(const ExactConvolution&) = delete;
};

}  // namespace fastntk::test
