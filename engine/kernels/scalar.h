// The kinds of element-wise kernels, and the formulas of the simple ones, one source for every backend; the others are
// in special_functions.h.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define FASTNTK_HOST_DEVICE __host__ __device__
#else
#define FASTNTK_HOST_DEVICE
#endif
#if defined(__CUDA_ARCH__)
#define FASTNTK_UNROLL _Pragma("unroll")
#define FASTNTK_UNROLL_BY_4 _Pragma("unroll 4")
#elif defined(__CUDACC__)  // what nvcc leaves to the host's compiler
#define FASTNTK_UNROLL
#define FASTNTK_UNROLL_BY_4
#else
#define FASTNTK_UNROLL _Pragma("GCC unroll 32")
#define FASTNTK_UNROLL_BY_4 _Pragma("GCC unroll 4")
#endif

namespace fastntk {

// `p` below is the parameter of the kernel call.
enum class UnaryKind : uint8_t {
  scale,
  shift,
  relu,
  step,  ///< [x > 0]
  log,
  sqrt,
  square,
  reciprocal,
  power,  ///< xᵖ
  abs,
  sign,      ///< −1, 0 or 1
  at_least,  ///< max(x, p)
  at_most,   ///< min(x, p)
  sin,
  cos,
  // Those in special_functions.h.
  exp,
  tanh,
  erf,
  sigmoid,               ///< 1 / (1 + exp(−x))
  softplus,              ///< log(1 + exp(x))
  silu,                  ///< x sigmoid(x)
  gelu,                  ///< x Φ(x), Φ the normal distribution
  gelu_derivative,       ///< Φ(x) + x φ(x), φ = Φ'
  gelu_tanh,             ///< ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
  gelu_tanh_derivative,  ///< its derivative
};
constexpr int unary_kinds = static_cast<int>(UnaryKind::gelu_tanh_derivative) + 1;
enum class BinaryKind : uint8_t {
  add,
  subtract,
  multiply,
  divide,
  where_positive,  ///< a where b > 0, else 0
  equal,           ///< [a = b]
  power,           ///< aᵇ
  maximum,
  minimum,
  compare,  ///< 1 where a > b, ½ where a = b, 0 where a < b
};
constexpr int binary_kinds = static_cast<int>(BinaryKind::compare) + 1;

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
  else if constexpr (kind == UnaryKind::log)
    return std::log(x);
  else if constexpr (kind == UnaryKind::sqrt)
    return std::sqrt(x);
  else if constexpr (kind == UnaryKind::square)
    return x * x;
  else if constexpr (kind == UnaryKind::reciprocal)
    return T(1) / x;
  else if constexpr (kind == UnaryKind::power)
    return std::pow(x, p);
  else if constexpr (kind == UnaryKind::abs)
    return std::abs(x);
  else if constexpr (kind == UnaryKind::sign)
    return x > T(0) ? T(1) : x < T(0) ? T(-1) : x;
  else if constexpr (kind == UnaryKind::at_least)
    return x < p ? p : x;  // a NaN stays one
  else if constexpr (kind == UnaryKind::at_most)
    return x > p ? p : x;
  else if constexpr (kind == UnaryKind::sin)
    return std::sin(x);
  else {
    static_assert(kind == UnaryKind::cos, "this kind has no scalar formula");
    return std::cos(x);
  }
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
  else if constexpr (kind == BinaryKind::equal)
    return a == b ? T(1) : T(0);
  else if constexpr (kind == BinaryKind::power)
    return std::pow(a, b);
  else if constexpr (kind == BinaryKind::maximum)
    return a > b || a != a ? a : b;  // NaN where either is
  else if constexpr (kind == BinaryKind::minimum)
    return a < b || a != a ? a : b;
  else
    return a > b ? T(1) : a == b ? T(0.5) : T(0);
}

}  // namespace fastntk
