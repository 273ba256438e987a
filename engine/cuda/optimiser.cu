// Steps of optimisers.
#include "engine/kernels/optimiser.h"

#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"

namespace fastntk::FASTNTK_GPU {

template <class T>
void sgd(const Backend::SgdStep& arguments) {
  const SgdFormula<T> formula(arguments);
  T *const theta = elements_to_write<T>(arguments.theta), *const velocity = elements_to_write<T>(arguments.velocity);
  const T* const gradient = elements<T>(arguments.gradient);
  for_each(arguments.theta.elements(), [=] __device__(int64_t i) { formula(theta[i], gradient[i], velocity[i]); });
}

template <class T>
void adam(const Backend::AdamStep& arguments) {
  const AdamFormula<T> formula(arguments);
  T* const theta = elements_to_write<T>(arguments.theta);
  T *const mean = elements_to_write<T>(arguments.mean), *const square = elements_to_write<T>(arguments.square);
  const T* const gradient = elements<T>(arguments.gradient);
  for_each(arguments.theta.elements(),
           [=] __device__(int64_t i) { formula(theta[i], gradient[i], mean[i], square[i]); });
}

void step(const Backend::SgdStep& arguments) {
  for_floating(arguments.theta.dtype(), "an optimiser", [&](auto zero) { sgd<decltype(zero)>(arguments); });
}
void step(const Backend::AdamStep& arguments) {
  for_floating(arguments.theta.dtype(), "an optimiser", [&](auto zero) { adam<decltype(zero)>(arguments); });
}

}  // namespace fastntk::FASTNTK_GPU
