#include "datasets/tensor_file.h"

#include <algorithm>
#include <string_view>

#include "engine/npy.h"
#include "engine/safetensors.h"

namespace fastntk {
namespace {

constexpr std::string_view safetensors_suffix = ".safetensors", npy_suffix = ".npy";

Dataset from_tensors(const std::string& path, const Tensor& input, const Tensor* labels) {
  require(input.rank() == 4 && input.dtype() != DType::int64,
          "{}: the input must be float32, float64 or uint8 [N, C, H, W], it is {}", path, input.describe());
  const Tensor images = input.permute({0, 2, 3, 1});
  if (!labels) return Dataset(path, images, {}, 0);
  require(
      (labels->dtype() == DType::int64 || labels->dtype() == DType::uint8) && labels->shape() == Shape{input.extent(0)},
      "{}: the labels of {} inputs must be int64 or uint8 [{}], they are {}", path, input.extent(0), input.extent(0),
      labels->describe());
  const std::vector<int64_t> values = labels->to(DType::int64).to_vector<int64_t>();
  const int64_t largest = values.empty() ? -1 : *std::max_element(values.begin(), values.end());
  constexpr int64_t most_classes = 1 << 20;
  require(largest < most_classes, "{}: its largest label is {}; {} classes are possible", path, largest, most_classes);
  return Dataset(path, images, Tensor::from<int64_t>({input.extent(0)}, values), largest + 1);
}

}  // namespace

bool is_tensor_file(const std::string& path) {
  return path.ends_with(safetensors_suffix) || path.ends_with(npy_suffix);
}

Dataset load_tensor_file(const std::string& path) {
  if (path.ends_with(npy_suffix)) return from_tensors(path, load_npy(path), nullptr);
  require(path.ends_with(safetensors_suffix), "{}: a tensor file ends in {} or {}", path, safetensors_suffix,
          npy_suffix);
  const SafeTensors file = SafeTensors::load(path);
  const Tensor* const input = file.find("input");
  require(input != nullptr, "{}: it has no tensor \"input\"", path);
  return from_tensors(path, *input, file.find("labels"));
}

}  // namespace fastntk
