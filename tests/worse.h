// The largest error so far.
#pragma once
#include <cmath>
#include <limits>

namespace fastntk::test {

/// The larger of both; infinite for a NaN, which std::max would lose.
inline double worse(double worst, double error) {
  if (error <= worst) return worst;
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

}  // namespace fastntk::test
