// Steps of optimisers on the CPU; contracts in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void step(const Backend::SgdStep& arguments);
void step(const Backend::AdamStep& arguments);

}  // namespace fastntk::cpu
