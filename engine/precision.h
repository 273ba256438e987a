// In which precision layers multiply.
#pragma once
#include <cstdint>
#include <string_view>

namespace fastntk {

/// Of the products of layers in float32 with their weights, forwards and backwards:
///   float32  as they are
///   bf16     on the CPU, in linear layers: both operands rounded to bfloat16 (8 bits of mantissa)
///   tf32     on a GPU, in linear layers and convolutions: both operands rounded to TF32 (11 bits of mantissa)
/// Sums are float32. All else stays as it is: attention, norms, softmax, residuals, gradients of the weights, products
/// of rows. On a device that cannot do it such a product is an Error.
enum class Precision : uint8_t { float32, bf16, tf32 };

/// From now on, in all threads; float32 at first. Error where bf16 is asked of a processor without AVX512_BF16.
void set_linear_precision(Precision precision);
Precision linear_precision();
/// "float32", "bf16" or "tf32".
const char* name_of(Precision precision);
Precision parse_precision(std::string_view name);

}  // namespace fastntk
