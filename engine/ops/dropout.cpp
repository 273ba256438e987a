#include "engine/ops/dropout.h"

#include "engine/ops/elementwise.h"
#include "engine/parallel.h"

namespace fastntk {
namespace {

// 0 or 1 / (1 − rate), element i from the counter first + i. Made on the host for every device: the same bits.
Tensor mask(const Shape& shape, DType dtype, double rate, const Random& random, int64_t first) {
  Tensor out(shape, dtype);
  for_floating(dtype, "dropout", [&](auto zero) {
    using T = decltype(zero);
    T* const p = out.mutable_data<T>();
    const T kept = static_cast<T>(1 / (1 - rate));
    parallel_ranges(out.elements(), 1 << 12, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++)
        p[i] = static_cast<double>(random.uniform_float(static_cast<uint64_t>(first + i))) < rate ? T(0) : kept;
    });
  });
  return out;
}

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
  return x * Variable(mask(x.shape(), x.dtype(), rate, random, first_sample * sample).to(x.value.device()));
}

Variable drop_path(const Variable& x, double rate, const Random& random, int64_t first_sample) {
  check("drop_path", x, rate, first_sample);
  if (rate == 0) return x;
  Shape shape = Shape::filled(x.rank(), 1);
  shape[0] = x.extent(0);
  return x * Variable(mask(shape, x.dtype(), rate, random, first_sample).to(x.value.device()));
}

}  // namespace fastntk
