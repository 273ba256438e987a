// Random tensors on the CPU; contract in engine/backend.h.
#pragma once
#include "engine/backend.h"

namespace fastntk::cpu {

void random(const Backend::RandomFill& arguments);

}  // namespace fastntk::cpu
