// The last step before a model sees pixels.
#pragma once
#include <cstdint>
#include <vector>

namespace fastntk {

/// What becomes of pixel x in channel c before a model sees it: (x − mean[c]) / stddev[c]. Pixels stored as uint8 are
/// first divided by 255; floating-point pixels are taken as they are.
struct Normalisation {
  std::vector<double> mean, stddev;  ///< one number per channel
  /// mean 0 and stddev 1.
  static Normalisation identity(int64_t channels) {
    const auto count = static_cast<size_t>(channels);
    return {std::vector<double>(count, 0), std::vector<double>(count, 1)};
  }
};

}  // namespace fastntk
