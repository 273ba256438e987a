#include "models/regularisation.h"

#include "engine/ops/dropout.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

double checked(const char* layer, double rate) {
  require(rate >= 0 && rate < 1, "{}: the rate must be in [0, 1), got {}", layer, rate);
  return rate;
}

}  // namespace

Dropout::Dropout(double rate) : rate_(checked("dropout", rate)) {}

Variable Dropout::forward(const Pass& pass, const Variable& x) const {
  if (pass.mode() == Mode::eval || rate_ == 0) return x;
  const auto [random, first_sample] = pass.draws(*this);
  return dropout(x, rate_, random, first_sample);
}

DropPath::DropPath(double rate) : rate_(checked("drop path", rate)) {}

Variable DropPath::forward(const Pass& pass, const Variable& x) const {
  if (pass.mode() == Mode::eval || rate_ == 0) return x;
  const auto [random, first_sample] = pass.draws(*this);
  return drop_path(x, rate_, random, first_sample);
}

LayerScale::LayerScale(int64_t channels, double initial)
    : gamma_(add_parameter("gamma", {channels}, Initial::constant(initial))) {}

Variable LayerScale::forward(const Pass& pass, const Variable& x) const {
  const Variable gamma = pass.parameter(gamma_);  // [1 or N, C], to stand beside x [N, …, C]
  Shape shape = Shape::filled(x.rank(), 1);
  shape[0] = gamma.extent(0);
  shape[-1] = gamma.extent(1);
  return x * reshape(gamma, shape);
}

}  // namespace fastntk
