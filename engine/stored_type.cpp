#include "engine/stored_type.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/file.h"

namespace fastntk {
namespace {

struct Description {
  StoredType type;
  const char* name;
  size_t size;
  DType memory;
};
constexpr std::array<Description, 10> table{{{StoredType::f64, "F64", 8, DType::float64},
                                             {StoredType::f32, "F32", 4, DType::float32},
                                             {StoredType::f16, "F16", 2, DType::float32},
                                             {StoredType::bf16, "BF16", 2, DType::float32},
                                             {StoredType::i64, "I64", 8, DType::int64},
                                             {StoredType::i32, "I32", 4, DType::int64},
                                             {StoredType::i16, "I16", 2, DType::int64},
                                             {StoredType::i8, "I8", 1, DType::int64},
                                             {StoredType::u8, "U8", 1, DType::uint8},
                                             {StoredType::boolean, "BOOL", 1, DType::uint8}}};
constexpr const Description& about(StoredType type) { return table[static_cast<size_t>(type)]; }

// IEEE binary16: sign, 5 bits of exponent (bias 15), 10 bits of fraction.
float from_half(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h >> 15) << 31, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

uint16_t to_half(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFF;
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  if (magnitude > 0x7F800000) return sign | 0x7E00;   // NaN
  if (magnitude >= 0x477FF000) return sign | 0x7C00;  // 65520 and more: infinity
  if (magnitude < 0x38800000)                         // below 2^-14: a multiple of 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(std::abs(x), 24)));
  const uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded >> 13) - ((127 - 15) << 10));
}

// The upper half of a float32.
float from_bfloat(uint16_t b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

uint16_t to_bfloat(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

template <class From, class To, class Convert>
void convert(std::span<const std::byte> stored, Tensor& out, Convert&& one) {
  To* const to = out.mutable_data<To>();
  for (size_t i = 0; i < stored.size() / sizeof(From); i++) {
    From x;
    std::memcpy(&x, stored.data() + i * sizeof(From), sizeof(From));
    to[i] = one(x);
  }
}

template <class From>
void widen(std::span<const std::byte> stored, Tensor& out) {
  convert<From, int64_t>(stored, out, [](From x) { return int64_t{x}; });
}

template <class From, class To, class Convert>
std::vector<std::byte> narrowed(const Tensor& tensor, StoredType type, std::string_view what, Convert&& one) {
  const Tensor packed = tensor.contiguous();
  const From* const from = packed.data<From>();
  const auto n = static_cast<size_t>(packed.elements());
  std::vector<std::byte> stored(n * sizeof(To));
  for (size_t i = 0; i < n; i++) {
    const To y = one(from[i]);
    bool lost = false;
    if constexpr (std::is_same_v<To, float>)
      lost = std::isinf(y);
    else
      lost = std::isinf(type == StoredType::f16 ? from_half(y) : from_bfloat(y));
    if (lost && std::isfinite(from[i]))
      fail("element {} of {} is {}, too large for {}", i, what, static_cast<double>(from[i]), name_of(type));
    std::memcpy(stored.data() + i * sizeof(To), &y, sizeof(To));
  }
  return stored;
}

}  // namespace

size_t size_of(StoredType type) { return about(type).size; }
const char* name_of(StoredType type) { return about(type).name; }
DType memory_type(StoredType type) { return about(type).memory; }

std::optional<StoredType> stored_type(std::string_view name) {
  for (const Description& d : table)
    if (d.name == name) return d.type;
  return std::nullopt;
}

std::string stored_type_names() {
  std::string names;
  for (const Description& d : table) names += (names.empty() ? "" : ", ") + std::string(d.name);
  return names;
}

StoredType stored_type_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return StoredType::f64;
    case DType::float32:
      return StoredType::f32;
    case DType::int64:
      return StoredType::i64;
    case DType::uint8:
      return StoredType::u8;
  }
  fail("there is no stored type for {}", name_of(dtype));
}

void decode(std::span<const std::byte> stored, StoredType type, Tensor& out) {
  require(out.dtype() == memory_type(type) && out.is_contiguous() &&
              stored.size() == static_cast<size_t>(out.elements()) * size_of(type),
          "decoding {} bytes of {} into {}", stored.size(), name_of(type), out.describe());
  switch (type) {
    case StoredType::f16:
      return convert<uint16_t, float>(stored, out, from_half);
    case StoredType::bf16:
      return convert<uint16_t, float>(stored, out, from_bfloat);
    case StoredType::i32:
      return widen<int32_t>(stored, out);
    case StoredType::i16:
      return widen<int16_t>(stored, out);
    case StoredType::i8:
      return widen<int8_t>(stored, out);
    case StoredType::boolean:
      return convert<uint8_t, uint8_t>(stored, out, [](uint8_t x) { return static_cast<uint8_t>(x != 0); });
    default:
      if (!stored.empty()) std::memcpy(mutable_bytes_of(out).data(), stored.data(), stored.size());
  }
}

std::vector<std::byte> encode(const Tensor& tensor, StoredType type, std::string_view what) {
  if (type == stored_type_of(tensor.dtype())) {
    const Tensor packed = tensor.contiguous();
    const auto bytes = bytes_of(packed);
    return {bytes.begin(), bytes.end()};
  }
  const bool wide = tensor.dtype() == DType::float64;
  const auto as_float = [](double x) { return static_cast<float>(x); };
  if (wide && type == StoredType::f32) return narrowed<double, float>(tensor, type, what, as_float);
  if (tensor.dtype() == DType::float32 && type == StoredType::f64) return encode(tensor.to(DType::float64), type, what);
  require(is_floating(tensor.dtype()) && (type == StoredType::f16 || type == StoredType::bf16),
          "{} of type {} cannot be stored as {}", what, name_of(tensor.dtype()), name_of(type));
  const auto one = type == StoredType::f16 ? to_half : to_bfloat;
  if (wide) return narrowed<double, uint16_t>(tensor, type, what, [&](double x) { return one(as_float(x)); });
  return narrowed<float, uint16_t>(tensor, type, what, one);
}

}  // namespace fastntk
