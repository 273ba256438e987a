// The two parts that a data set is published in.
#pragma once
#include <cstdint>

namespace fastntk {

enum class Part : uint8_t { train, test };
constexpr const char* name_of(Part part) { return part == Part::train ? "train" : "test"; }

}  // namespace fastntk
