#include "engine/ops/sort.h"

#include <optional>

#include "engine/backend.h"
#include "engine/ops/gather.h"

namespace fastntk {
namespace {

// The first `count` places of x along an axis in an order; all of them unless it is given.
Tensor places(const char* name, const Variable& x, int axis, SortOrder order, std::optional<int64_t> count = {}) {
  require(!x.active(),
          "{} has no derivative, but its input {} is on a tape: give it x.constant(), and pick what is to be "
          "differentiated with gather(x, axis, indices)",
          name, x.shape().str());
  require(axis >= -x.rank() && axis < x.rank(), "{}: axis {} of a tensor of rank {}", name, axis, x.rank());
  Shape shape = x.shape();
  const int64_t extent = shape[axis], wanted = count.value_or(extent);
  require(wanted >= 0 && wanted <= extent, "{}: {} of the {} elements along axis {} of {}", name, wanted, extent, axis,
          x.shape().str());
  shape[axis] = wanted;
  Tensor index(shape, DType::int64, x.value.device());
  backend_of(x.value).argsort(x.value, axis, order, index);
  return index;
}

Sorted with_values(const Variable& x, int axis, const Tensor& indices) {
  return {gather(x, axis, indices).value, indices};
}

}  // namespace

Sorted sort(const Variable& x, int axis, bool descending) {
  const SortOrder order = descending ? SortOrder::descending : SortOrder::ascending;
  return with_values(x, axis, places("sort", x, axis, order));
}

Sorted topk(const Variable& x, int64_t k, int axis, bool largest) {
  return with_values(x, axis, places("topk", x, axis, largest ? SortOrder::descending : SortOrder::ascending, k));
}

Tensor argmax(const Variable& x, int axis) { return places("argmax", x, axis, SortOrder::descending, 1); }
Tensor argmin(const Variable& x, int axis) { return places("argmin", x, axis, SortOrder::ascending_nan_first, 1); }

}  // namespace fastntk
