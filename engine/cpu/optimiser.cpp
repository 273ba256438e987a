#include "engine/cpu/optimiser.h"

#include "engine/kernels/optimiser.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

constexpr int64_t grain = 1 << 15;

}  // namespace

void step(const Backend::SgdStep& arguments) {
  for_floating(arguments.theta.dtype(), "an optimiser", [&](auto zero) {
    using T = decltype(zero);
    const SgdFormula<T> formula(arguments);
    T *const theta = arguments.theta.mutable_data<T>(), *const velocity = arguments.velocity.mutable_data<T>();
    const T* const gradient = arguments.gradient.data<T>();
    parallel_ranges(arguments.theta.elements(), grain, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) formula(theta[i], gradient[i], velocity[i]);
    });
  });
}

void step(const Backend::AdamStep& arguments) {
  for_floating(arguments.theta.dtype(), "an optimiser", [&](auto zero) {
    using T = decltype(zero);
    const AdamFormula<T> formula(arguments);
    T* const theta = arguments.theta.mutable_data<T>();
    T *const mean = arguments.mean.mutable_data<T>(), *const square = arguments.square.mutable_data<T>();
    const T* const gradient = arguments.gradient.data<T>();
    parallel_ranges(arguments.theta.elements(), grain, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++) formula(theta[i], gradient[i], mean[i], square[i]);
    });
  });
}

}  // namespace fastntk::cpu
