#include "datasets/samples.h"

#include <cstring>

namespace fastntk {

Samples select(const Samples& samples, const std::vector<int64_t>& positions) {
  const int64_t n = static_cast<int64_t>(positions.size()),
                row = samples.size() ? samples.inputs.elements() / samples.size() : 0;
  Samples out;
  const Shape image = samples.inputs.shape().slice(1, samples.inputs.rank());
  out.inputs = Tensor(Shape{n} + image, samples.inputs.dtype());
  out.labels = Tensor({n}, DType::int64);
  const Tensor inputs = samples.inputs.contiguous();
  const int64_t* const from = samples.labels.data<int64_t>();
  int64_t* const to = out.labels.mutable_data<int64_t>();
  for_floating(inputs.dtype(), "a set of samples", [&](auto zero) {
    using T = decltype(zero);
    T* const p = out.inputs.mutable_data<T>();
    const T* const q = inputs.data<T>();
    for (int64_t i = 0; i < n; i++) {
      const int64_t at = positions[static_cast<size_t>(i)];
      require(at >= 0 && at < samples.size(), "position {} in a set of {} samples", at, samples.size());
      std::memcpy(p + i * row, q + at * row, static_cast<size_t>(row) * sizeof(T));
      to[i] = from[at];
      out.ids.push_back(samples.ids[static_cast<size_t>(at)]);
    }
  });
  return out;
}

}  // namespace fastntk
