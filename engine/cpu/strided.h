// Walking several tensors of one shape at once: axes that are evenly strided in all of them are merged first.
#pragma once
#include <array>
#include <cstdint>

#include "engine/tensor.h"

namespace fastntk::cpu {

/// Where item `item`, counted in row-major order, of the first `axes` axes begins, in elements.
inline int64_t offset_of(const Tensor& t, int axes, int64_t item) {
  int64_t offset = 0;
  for (int axis = axes - 1; axis >= 0; axis--) {
    offset += item % t.extent(axis) * t.strides()[axis];
    item /= t.extent(axis);
  }
  return offset;
}

/// One shape, and the strides of `Operands` tensors over it, with as few axes as possible. At least one axis; the last
/// is the inner loop.
template <int Operands>
struct Walk {
  Shape shape;
  std::array<Shape, Operands> strides;

  Walk(const Shape& full, const std::array<Shape, Operands>& full_strides) {
    for (int axis = 0; axis < full.rank(); axis++) {
      if (full[axis] == 1) continue;
      bool merge = shape.rank() > 0;
      for (int k = 0; merge && k < Operands; k++) merge = strides[k][-1] == full_strides[k][axis] * full[axis];
      if (merge) {
        shape[-1] *= full[axis];
        for (int k = 0; k < Operands; k++) strides[k][-1] = full_strides[k][axis];
      } else {
        shape.push_back(full[axis]);
        for (int k = 0; k < Operands; k++) strides[k].push_back(full_strides[k][axis]);
      }
    }
    if (shape.rank() == 0) {
      shape.push_back(1);
      for (auto& s : strides) s.push_back(1);
    }
  }

  int64_t inner() const { return shape[-1]; }
  int64_t rows() const { return shape.leading(shape.rank() - 1).elements(); }
  int64_t inner_stride(int operand) const { return strides[operand][-1]; }

  /// Calls body(offsets) for rows [from, to); offsets[k] is where the row starts in operand k, in elements.
  template <class Body>
  void for_rows(int64_t from, int64_t to, Body&& body) const {
    const int outer = shape.rank() - 1;
    Shape index = Shape::filled(outer, 0);
    std::array<int64_t, Operands> offset{};
    int64_t rest = from;
    for (int axis = outer - 1; axis >= 0; axis--) {
      index[axis] = rest % shape[axis];
      rest /= shape[axis];
      for (int k = 0; k < Operands; k++) offset[k] += index[axis] * strides[k][axis];
    }
    for (int64_t row = from; row < to; row++) {
      body(offset);
      for (int axis = outer - 1; axis >= 0; axis--) {
        for (int k = 0; k < Operands; k++) offset[k] += strides[k][axis];
        if (++index[axis] < shape[axis]) break;
        for (int k = 0; k < Operands; k++) offset[k] -= strides[k][axis] * shape[axis];
        index[axis] = 0;
      }
    }
  }
};

}  // namespace fastntk::cpu
