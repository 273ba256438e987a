// Picking elements by index, and its transpose. The linear maps of maxima are made of these.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// y[l, i, r] = x[l, index[l, i, r], r] along `axis`: x [l…, E, r…], index int64 [l…, I, r…] with values in [0, E) →
/// [l…, I, r…], of any element type. The index broadcasts over extra leading axes of x, and over axes where its extent
/// is 1 (but `axis`).
Variable gather(const Variable& x, int axis, const Tensor& index);
/// The transpose of gather: y[l, index[l, i, r], r] = Σ_i x[l, i, r], zero elsewhere: x [l…, I, r…] → [l…, extent, r…].
Variable scatter_add(const Variable& x, int axis, const Tensor& index, int64_t extent);

}  // namespace fastntk
