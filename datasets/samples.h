// Samples ready for a model: floating-point inputs and labels.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

/// inputs [n, H, W, channels] in the model's type, normalised; labels int64 [n]; ids [n] into the data set as
/// published.
struct Samples {
  Tensor inputs, labels;
  std::vector<int64_t> ids;
  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

/// The samples at these positions, copied.
Samples select(const Samples& samples, const std::vector<int64_t>& positions);

/// Samples whose inputs are made when they are asked for, so that those of a large set are never in memory together.
class SampleSource {
 public:
  /// `inputs` makes those at some positions, [count, H, W, channels], the same bits whenever it is called. labels int64
  /// [n], one per id.
  using Inputs = std::function<Tensor(const std::vector<int64_t>& positions)>;
  SampleSource(Tensor labels, std::vector<int64_t> ids, Inputs inputs);
  /// Of samples that are in memory.
  SampleSource(const Samples& samples);  // NOLINT(google-explicit-constructor): samples are such a source

  int64_t size() const { return static_cast<int64_t>(ids_.size()); }
  const Tensor& labels() const { return labels_; }
  const std::vector<int64_t>& ids() const { return ids_; }
  /// The samples at these positions, in this order.
  Samples at(const std::vector<int64_t>& positions) const;
  /// All of them.
  Samples all() const;

 private:
  Tensor labels_;
  std::vector<int64_t> ids_;
  Inputs inputs_;
};

}  // namespace fastntk
