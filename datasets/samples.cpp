#include "datasets/samples.h"

namespace fastntk {

Samples select(const Samples& samples, const std::vector<int64_t>& positions) {
  for (const int64_t at : positions)
    require(at >= 0 && at < samples.size(), "position {} in a set of {} samples", at, samples.size());
  Samples out{.inputs = gather_rows(samples.inputs, positions), .labels = gather_rows(samples.labels, positions)};
  for (const int64_t at : positions) out.ids.push_back(samples.ids[static_cast<size_t>(at)]);
  return out;
}

}  // namespace fastntk
