#include "datasets/samples.h"

#include <numeric>

namespace fastntk {

Samples select(const Samples& samples, const std::vector<int64_t>& positions) {
  for (const int64_t at : positions)
    require(at >= 0 && at < samples.size(), "position {} in a set of {} samples", at, samples.size());
  Samples out{.inputs = gather_rows(samples.inputs, positions), .labels = gather_rows(samples.labels, positions)};
  for (const int64_t at : positions) out.ids.push_back(samples.ids[static_cast<size_t>(at)]);
  return out;
}

SampleSource::SampleSource(Tensor labels, std::vector<int64_t> ids, Inputs inputs)
    : labels_(std::move(labels)), ids_(std::move(ids)), inputs_(std::move(inputs)) {
  require(labels_.shape() == Shape{size()}, "{} samples need as many labels, got {}", size(), labels_.shape().str());
}

SampleSource::SampleSource(const Samples& samples)
    : SampleSource(samples.labels, samples.ids, [inputs = samples.inputs](const std::vector<int64_t>& positions) {
        return gather_rows(inputs, positions);
      }) {}

Samples SampleSource::at(const std::vector<int64_t>& positions) const {
  for (const int64_t i : positions) require(i >= 0 && i < size(), "position {} in a set of {} samples", i, size());
  Samples out{.inputs = inputs_(positions), .labels = gather_rows(labels_, positions)};
  for (const int64_t i : positions) out.ids.push_back(ids_[static_cast<size_t>(i)]);
  return out;
}

Samples SampleSource::all() const {
  std::vector<int64_t> positions(ids_.size());
  std::iota(positions.begin(), positions.end(), 0);
  return at(positions);
}

}  // namespace fastntk
