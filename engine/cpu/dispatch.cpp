#include "engine/cpu/dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <string>

namespace fastntk::cpu {
namespace {

Isa widest() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // What cmake/isa.cmake compiles each set for.
  unsigned a = 0, b = 0, c = 0, d = 0;  // clang has no name for F16C
  if (!__builtin_cpu_supports("bmi2") || !__get_cpuid(1, &a, &b, &c, &d) || (c & bit_F16C) == 0) return Isa::baseline;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa choose() {
  const Isa have = widest();
  const char* const asked = std::getenv("FASTNTK_ISA");
  if (!asked) return have;
  for (const Isa i : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (std::string(asked) == name_of(i)) {
      require_usage(i <= have, "FASTNTK_ISA asks for {}, but this processor has only {}", name_of(i), name_of(have));
      return i;
    }
  throw UsageError(fmt::format("FASTNTK_ISA must be baseline, avx2 or avx512, got '{}'", asked));
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "?";
}

}  // namespace fastntk::cpu
