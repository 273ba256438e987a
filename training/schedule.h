// Learning rate as a function of progress.
#pragma once
#include <cstdint>
#include <string>

namespace fastntk {

/// A schedule by name; t = step / steps is the fraction of the run that is done, peak the learning rate given:
///   constant             peak
///   step:E:F             peak · F^⌊t·E⌋: E equal parts, each F times the one before
///   cosine               peak · (1 + cos πt) / 2
///   cosine:W             linear warm-up over the first fraction W, then cosine over the rest
///   power:K:W            linear warm-up over the first fraction W, then peak · (1 − u)^K, u the fraction done of the
///   rest one-cycle            Smith's: cosine from peak/25 up to peak at t = 0.3, then cosine down to peak/250000
struct Schedule {
  std::string text = "constant";
  /// The learning rate of `step` (from 0) out of `steps`.
  double rate(double peak, int64_t step, int64_t steps) const;
  /// UsageError unless the text is one of the above.
  static Schedule parse(const std::string& text);
};

}  // namespace fastntk
