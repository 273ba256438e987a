// Picking along an axis by one list of indices, and the rearrangements made of it.
#pragma once
#include <initializer_list>
#include <vector>

#include "engine/op.h"

namespace fastntk {

/// y[…, i, …] = x[…, index[i], …] along `axis`; index int64 [I], the same for everything else (gather takes one by
/// element).
Variable index_select(const Variable& x, int axis, const Tensor& index);
/// Rows of a table [1 or N, V, D] by ids, int64 [N, T…] with values in [0, V) → [N, T…, D]. With N tables every sample
/// has its own.
Variable embedding(const Variable& table, const Tensor& ids);
/// The elements along the axes in reverse order.
Variable flip(const Variable& x, std::initializer_list<int> axes);
/// y[i] = x[(i − shift) mod extent] along `axis`: elements pushed over the end come back at the beginning.
Variable roll(const Variable& x, int64_t shift, int axis);

/// Tensors of one shape along a new axis, which is `axis` of the result.
Variable stack(const std::vector<Variable>& inputs, int axis);
/// Consecutive pieces of the given extents, which sum to that of the axis; the transpose of concat.
std::vector<Variable> split(const Variable& x, const std::vector<int64_t>& extents, int axis);
/// Pieces of `extent`, the last perhaps shorter.
std::vector<Variable> split(const Variable& x, int64_t extent, int axis);
/// Drops an axis of extent 1.
Variable squeeze(const Variable& x, int axis);
/// A new axis of extent 1, which is `axis` of the result.
Variable unsqueeze(const Variable& x, int axis);

}  // namespace fastntk
