// The formulas of engine/kernels/special_functions.h for a register of float or double at a time. Include only from
// engine/cpu/isa/*.cpp.
#pragma once
#include "engine/cpu/isa/vector.h"
#include "engine/kernels/special_functions.h"

namespace fastntk::special {
namespace {

typedef int32_t Words __attribute__((vector_size(cpu::FASTNTK_ISA::vector_bytes)));
typedef int64_t DoubleWords __attribute__((vector_size(cpu::FASTNTK_ISA::vector_bytes)));
template <>
struct ElementsOf<cpu::FASTNTK_ISA::Vector<float>> {
  using Element = float;
  using Bits = Words;
};
template <>
struct ElementsOf<cpu::FASTNTK_ISA::Vector<double>> {
  using Element = double;
  using Bits = DoubleWords;
};

}  // namespace
}  // namespace fastntk::special

namespace fastntk::cpu::FASTNTK_ISA {
using namespace special;  // NOLINT: the formulas are used by their names in mathematics
}  // namespace fastntk::cpu::FASTNTK_ISA
