// Which instruction set the CPU kernels use: the widest that both this build and this processor have.
#pragma once
#include "engine/error.h"

namespace fastntk::cpu {

enum class Isa { baseline, avx2, avx512 };

/// Chosen once from CPUID. The environment variable FASTNTK_ISA (baseline, avx2 or avx512) can ask for a narrower one.
Isa isa();
const char* name_of(Isa isa);

}  // namespace fastntk::cpu

// Picks the table of kernels `NAME` (declared in engine/cpu/isa/*.h, defined once per instruction set) for this
// processor.
#if defined(__x86_64__)
#define FASTNTK_DISPATCH(NAME)                                                         \
  (::fastntk::cpu::isa() == ::fastntk::cpu::Isa::avx512 ? ::fastntk::cpu::avx512::NAME \
   : ::fastntk::cpu::isa() == ::fastntk::cpu::Isa::avx2 ? ::fastntk::cpu::avx2::NAME   \
                                                        : ::fastntk::cpu::baseline::NAME)
#else
#define FASTNTK_DISPATCH(NAME) (::fastntk::cpu::baseline::NAME)
#endif

// Declares the table `NAME` of type `TYPE` in the namespace of every instruction set.
#if defined(__x86_64__)
#define FASTNTK_DECLARE_TABLE(TYPE, NAME) \
  namespace fastntk::cpu::baseline {      \
  extern const TYPE NAME;                 \
  }                                       \
  namespace fastntk::cpu::avx2 {          \
  extern const TYPE NAME;                 \
  }                                       \
  namespace fastntk::cpu::avx512 {        \
  extern const TYPE NAME;                 \
  }
#else
#define FASTNTK_DECLARE_TABLE(TYPE, NAME) \
  namespace fastntk::cpu::baseline {      \
  extern const TYPE NAME;                 \
  }
#endif
