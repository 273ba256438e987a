// Products of two tensors with named axes.
#pragma once
#include <string_view>

#include "engine/op.h"

namespace fastntk {

/// Einstein summation over two operands, e.g. "nhqd,nhkd->nhqk": a letter names an axis, and what is not behind the
/// arrow is summed over. "..." names any number of axes, which must come out again. Axes of one letter have one extent;
/// those that come out may also be 1 in one operand, and then broadcast. A letter must not appear twice in an operand
/// (a diagonal), and the arrow must be there. A composition on the tape: sum, permute, reshape and one batched matmul,
/// or a multiply where nothing is summed over.
///
/// When the first axis of the result is the first of an operand, it is taken for the samples' and never joined with
/// another, so per-sample leaves pass.
Variable einsum(std::string_view equation, const Variable& a, const Variable& b);

}  // namespace fastntk
