// In which precision linear layers multiply.
#pragma once
#include <cstdint>

namespace fastntk {

/// Of the products of linear layers in float32, forwards and backwards, with weights that are kept: as they are, or
/// with both operands rounded to bfloat16 (8 bits of mantissa) and sums in float32. All else stays as it is: attention,
/// norms, softmax, convolutions, residuals, and gradients of the weights.
enum class Precision : uint8_t { float32, bf16 };

/// From now on, in all threads; float32 at first. Error where bf16 is asked of a processor without AVX512_BF16.
void set_linear_precision(Precision precision);
Precision linear_precision();
/// "float32" or "bf16".
const char* name_of(Precision precision);

}  // namespace fastntk
