// Element types as files have them: more than the engine computes with.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

enum class StoredType : uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

size_t size_of(StoredType type);
/// The name that safetensors has for it: "F64", "BF16", "BOOL", …
const char* name_of(StoredType type);
/// The type of this name; none if there is no such type here.
std::optional<StoredType> stored_type(std::string_view name);
/// "F64, F32, …": all names, for errors.
std::string stored_type_names();

/// What elements become in memory, all without rounding: F16 and BF16 float32; I32, I16 and I8 int64; BOOL uint8 (0,
/// 1).
DType memory_type(StoredType type);
/// The type that stores elements as they are.
StoredType stored_type_of(DType dtype);

/// Elements as a file has them (little-endian, one after the other) into the contiguous tensor `out`, which has their
/// number and memory_type.
void decode(std::span<const std::byte> stored, StoredType type, Tensor& out);
/// The elements of a tensor as a file has them. Floating-point types are converted, rounding to nearest, ties to even
/// (float64 to F16 and BF16 by way of float32). Error, naming `what`, where a finite value would become infinite, and
/// for other conversions.
std::vector<std::byte> encode(const Tensor& tensor, StoredType type, std::string_view what);

}  // namespace fastntk
