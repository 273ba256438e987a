// The scalar formulas of element-wise kernels, one source for every backend.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define FASTNTK_HOST_DEVICE __host__ __device__
#else
#define FASTNTK_HOST_DEVICE
#endif

namespace fastntk {

// `p` below is the parameter of the kernel call.
enum class UnaryKind : uint8_t { scale, shift, relu, step, exp, log, sqrt, square, reciprocal, power };
enum class BinaryKind : uint8_t { add, subtract, multiply, divide, where_positive, equal };

template <UnaryKind kind, class T>
FASTNTK_HOST_DEVICE inline T evaluate(T x, T p) {
  if constexpr (kind == UnaryKind::scale)
    return p * x;
  else if constexpr (kind == UnaryKind::shift)
    return x + p;
  else if constexpr (kind == UnaryKind::relu)
    return x > T(0) ? x : x != x ? x : T(0);  // a NaN stays one
  else if constexpr (kind == UnaryKind::step)
    return x > T(0) ? T(1) : T(0);
  else if constexpr (kind == UnaryKind::exp)
    return std::exp(x);
  else if constexpr (kind == UnaryKind::log)
    return std::log(x);
  else if constexpr (kind == UnaryKind::sqrt)
    return std::sqrt(x);
  else if constexpr (kind == UnaryKind::square)
    return x * x;
  else if constexpr (kind == UnaryKind::reciprocal)
    return T(1) / x;
  else
    return std::pow(x, p);
}

template <BinaryKind kind, class T>
FASTNTK_HOST_DEVICE inline T evaluate(T a, T b) {
  if constexpr (kind == BinaryKind::add)
    return a + b;
  else if constexpr (kind == BinaryKind::subtract)
    return a - b;
  else if constexpr (kind == BinaryKind::multiply)
    return a * b;
  else if constexpr (kind == BinaryKind::divide)
    return a / b;
  else if constexpr (kind == BinaryKind::where_positive)
    return b > T(0) ? a : T(0);
  else
    return a == b ? T(1) : T(0);
}

}  // namespace fastntk
