#include "engine/ops/dropout.h"

#include "engine/ops/elementwise.h"

namespace fastntk {
namespace {

void check(const char* name, const Variable& x, double rate, int64_t first_sample) {
  require(x.rank() >= 1, "{} needs samples along axis 0, got {}", name, x.shape().str());
  require(rate >= 0 && rate < 1, "{}: the rate must be in [0, 1), got {}", name, rate);
  require(first_sample >= 0, "{}: the first sample is {}", name, first_sample);
}

}  // namespace

Variable dropout(const Variable& x, double rate, const Random& random, int64_t first_sample) {
  check("dropout", x, rate, first_sample);
  if (rate == 0) return x;
  const int64_t sample = x.shape().slice(1, x.rank()).elements();
  return x * Variable(random.dropout_mask(x.shape(), rate, first_sample * sample, x.dtype(), x.value.device()));
}

Variable drop_path(const Variable& x, double rate, const Random& random, int64_t first_sample) {
  check("drop_path", x, rate, first_sample);
  if (rate == 0) return x;
  Shape shape = Shape::filled(x.rank(), 1);
  shape[0] = x.extent(0);
  return x * Variable(random.dropout_mask(shape, rate, first_sample, x.dtype(), x.value.device()));
}

}  // namespace fastntk
