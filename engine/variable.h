// Variable: a tensor, and where it stands on a tape if it depends on one of the tape's leaves.
#pragma once
#include "engine/tensor.h"

namespace fastntk {

class Tape;

/// A value in a computation. A Variable made from a Tensor is a constant; a leaf of a Tape, and whatever is computed
/// from one by an op, is active: it knows its tape and its slot there. Undefined stands for zero in linear maps.
struct Variable {
  Tensor value;
  Tape* tape = nullptr;
  int slot = -1;

  Variable() = default;
  Variable(Tensor tensor) : value(std::move(tensor)) {}  // NOLINT: a tensor is a constant variable
  Variable(Tensor tensor, Tape* on, int at) : value(std::move(tensor)), tape(on), slot(at) {}

  bool defined() const { return value.defined(); }
  bool active() const { return tape != nullptr; }
  const Shape& shape() const { return value.shape(); }
  int64_t extent(int axis) const { return value.extent(axis); }
  int rank() const { return value.rank(); }
  DType dtype() const { return value.dtype(); }
  /// The same value, cut off from its tape.
  Variable constant() const { return {value}; }
};

}  // namespace fastntk
