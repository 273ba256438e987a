#include "engine/precision.h"

#include <atomic>

#include "engine/cpu/gemm_bf16.h"
#include "engine/error.h"

namespace fastntk {
namespace {

std::atomic<Precision> in_use{Precision::float32};

}  // namespace

void set_linear_precision(Precision precision) {
  require(precision == Precision::float32 || cpu::has_bf16(),
          "products in bf16 need a processor with AVX512_BF16, this one has it not");
  in_use = precision;
}
Precision linear_precision() { return in_use; }

const char* name_of(Precision precision) { return precision == Precision::bf16 ? "bf16" : "float32"; }

}  // namespace fastntk
