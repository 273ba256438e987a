// Sums over axes, and the shape ops that are their transposes and companions. Axes may be negative (counted from the
// back).
#pragma once
#include <initializer_list>
#include <span>

#include "engine/op.h"

namespace fastntk {

/// Sum over `axes`, which stay with extent 1.
Variable sum(const Variable& x, std::span<const int> axes);
inline Variable sum(const Variable& x, std::initializer_list<int> axes) {
  return sum(x, std::span<const int>(axes.begin(), axes.size()));
}
Variable mean(const Variable& x, std::initializer_list<int> axes);
/// Sum over all axes: a scalar of shape [].
Variable sum(const Variable& x);
Variable mean(const Variable& x);

/// Undoes broadcasting: sums `c` [lead…, an op's output of rank `output_rank`] to [lead…, input…] over the axes along
/// which the op broadcast its input.
Variable sum_to(const Variable& c, const Shape& input, int output_rank);

/// Axes of extent 1 repeated without a copy; leading axes may be added.
Variable expand(const Variable& x, const Shape& shape);
/// Same elements in the same order under another shape. Leading axes that both shapes share are left alone.
Variable reshape(const Variable& x, const Shape& shape);
/// Axis i of the result is axis order[i] of x.
Variable permute(const Variable& x, std::span<const int> order);
inline Variable permute(const Variable& x, std::initializer_list<int> order) {
  return permute(x, std::span<const int>(order.begin(), order.size()));
}
Variable transpose(const Variable& x, int a, int b);
/// Elements from, from + step, … below to, of one axis.
Variable slice(const Variable& x, int axis, int64_t from, int64_t to, int64_t step = 1);
/// Zeros around one axis: `before` and `after` of them.
Variable pad(const Variable& x, int axis, int64_t before, int64_t after);
/// The inputs one after the other along `axis`; their other axes are equal.
Variable concat(const std::vector<Variable>& inputs, int axis);

}  // namespace fastntk
