#include "engine/precision.h"

#include <atomic>

#include "engine/cpu/gemm_bf16.h"
#include "engine/error.h"

namespace fastntk {
namespace {

std::atomic<Precision> in_use{Precision::float32};

}  // namespace

void set_linear_precision(Precision precision) {
  require(precision != Precision::bf16 || cpu::has_bf16(),
          "products in bf16 need a processor with AVX512_BF16, this one has it not");
  in_use = precision;
}
Precision linear_precision() { return in_use; }

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::float32:
      return "float32";
    case Precision::bf16:
      return "bf16";
    case Precision::tf32:
      return "tf32";
  }
  return "?";
}

Precision parse_precision(std::string_view name) {
  for (const Precision p : {Precision::float32, Precision::bf16, Precision::tf32})
    if (name == name_of(p)) return p;
  throw UsageError(fmt::format("there is no precision '{}': float32, bf16 (on the CPU) or tf32 (on a GPU)", name));
}

}  // namespace fastntk
