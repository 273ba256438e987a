// Element types.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "engine/error.h"

namespace fastntk {

enum class DType : uint8_t { float32, float64, int64, uint8 };

constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::float32:
      return 4;
    case DType::float64:
    case DType::int64:
      return 8;
    case DType::uint8:
      return 1;
  }
  return 0;
}
constexpr const char* name_of(DType t) {
  switch (t) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::int64:
      return "int64";
    case DType::uint8:
      return "uint8";
  }
  return "?";
}
constexpr bool is_floating(DType t) { return t == DType::float32 || t == DType::float64; }

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::float32;
  else if constexpr (std::is_same_v<T, double>)
    return DType::float64;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::int64;
  else {
    static_assert(std::is_same_v<T, uint8_t>, "not an element type");
    return DType::uint8;
  }
}

/// Calls f(T{}) with the floating-point C++ type of `t`; any other type is an error naming `where`.
template <class F>
decltype(auto) for_floating(DType t, const char* where, F&& f) {
  switch (t) {
    case DType::float32:
      return std::forward<F>(f)(float{});
    case DType::float64:
      return std::forward<F>(f)(double{});
    default:
      fail("{} needs float32 or float64, got {}", where, name_of(t));
  }
}
/// Calls f(T{}) with the C++ type of `t`.
template <class F>
decltype(auto) for_any(DType t, F&& f) {
  switch (t) {
    case DType::float32:
      return std::forward<F>(f)(float{});
    case DType::float64:
      return std::forward<F>(f)(double{});
    case DType::int64:
      return std::forward<F>(f)(int64_t{});
    default:
      return std::forward<F>(f)(uint8_t{});
  }
}

}  // namespace fastntk
