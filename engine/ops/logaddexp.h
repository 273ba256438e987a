// The logarithm of a sum of two exponentials: adding probabilities that are kept as logarithms.
#pragma once
#include "engine/op.h"

namespace fastntk {

/// log(eᵃ + eᵇ), element by element, without overflow. Broadcasts over axes of extent 1 and over missing leading axes.
Variable logaddexp(const Variable& a, const Variable& b);

}  // namespace fastntk
