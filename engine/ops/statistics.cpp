#include "engine/ops/statistics.h"

#include <algorithm>
#include <vector>

#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"

namespace fastntk {
namespace {

// f, which reduces the last axis, over several axes: they are moved behind the others and joined.
template <class F>
Variable over(const char* name, const Variable& x, std::initializer_list<int> axes, F&& f) {
  Shape kept, result = x.shape();
  int64_t joined = 1;
  std::vector<char> reduced(static_cast<size_t>(x.rank()), 0);
  for (const int axis : axes) {
    require(axis >= -x.rank() && axis < x.rank(), "{}: axis {} of a tensor of rank {}", name, axis, x.rank());
    reduced[static_cast<size_t>(axis < 0 ? axis + x.rank() : axis)] = 1;
    result[axis] = 1;
  }
  for (int axis = 0; axis < x.rank(); axis++)
    if (reduced[static_cast<size_t>(axis)]) joined *= x.extent(axis);
  std::vector<int> order;
  for (const char last : {0, 1})
    for (int axis = 0; axis < x.rank(); axis++)
      if (reduced[static_cast<size_t>(axis)] == last) {
        order.push_back(axis);
        if (!last) kept.push_back(x.extent(axis));
      }
  const Variable moved = std::is_sorted(order.begin(), order.end()) ? x : permute(x, order);
  return reshape(f(reshape(moved, kept + Shape{joined})), result);
}

}  // namespace

Variable var(const Variable& x, std::initializer_list<int> axes, int64_t correction) {
  const Variable centre = mean(x, axes);
  int64_t n = 1;
  for (int axis = 0; axis < x.rank(); axis++)
    if (centre.extent(axis) != x.extent(axis)) n *= x.extent(axis);
  require(n > correction, "var: {} elements over the axes of {} are too few for a correction of {}", n, x.shape().str(),
          correction);
  return scale(sum(square(x - centre), axes), 1 / static_cast<double>(n - correction));
}

Variable max(const Variable& x, std::initializer_list<int> axes) {
  return over("max", x, axes, [](const Variable& joined) { return max(joined, -1); });
}

Variable min(const Variable& x, int axis) { return negate(max(negate(x), axis)); }

Variable min(const Variable& x, std::initializer_list<int> axes) { return negate(max(negate(x), axes)); }

Variable logsumexp(const Variable& x, std::initializer_list<int> axes) {
  return over("logsumexp", x, axes, [](const Variable& joined) { return logsumexp(joined); });
}

}  // namespace fastntk
