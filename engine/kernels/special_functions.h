// exp, tanh, erf and what is made of them: a few ulp, without branches, the same operations for every element. NaN
// stays NaN. One source for every backend: V is float, double, or whatever has + − * / and comparisons by element, such
// as a register of a CPU (engine/cpu/isa/vector_math.h). In an unnamed namespace, because files that include this may
// be compiled for different instruction sets.
//
// The polynomials interpolate at the Chebyshev nodes of their interval; the comments give the largest relative error of
// what they stand for, apart from rounding.
#pragma once
#include <cstdint>

#include "engine/kernels/scalar.h"

#if defined(__CUDACC__)
#define FASTNTK_INLINE __host__ __device__ __forceinline__
#else
#define FASTNTK_INLINE inline __attribute__((always_inline))
#endif

namespace fastntk::special {
namespace {

/// The type of the elements of V, and integers as wide as they are.
template <class V>
struct ElementsOf;
template <>
struct ElementsOf<float> {
  using Element = float;
  using Bits = int32_t;
};
template <>
struct ElementsOf<double> {
  using Element = double;
  using Bits = int64_t;
};
template <class V>
using Element = typename ElementsOf<V>::Element;

template <class T, int n>
struct Coefficients {
  T of[n];
};

/// What depends on the type of the elements.
template <class T>
struct Constants;
template <>
struct Constants<float> {
  static constexpr int mantissa = 23;
  /// exp is 0 below and infinite above; n of 2ⁿ then fits two factors.
  static constexpr float exp_low = -104, exp_high = 89;
  static constexpr float round = 0x1.8p23F, bias = 127;  // adding `round` leaves an integer in the lowest bits
  static constexpr float ln2_high = 0x1.62e4p-1F, ln2_low = 1.42860677e-6F;
  /// q of eʳ = 1 + r + r² q(r), |r| ≤ ½ ln 2: 8e-9
  static FASTNTK_INLINE constexpr Coefficients<float, 5> exp() {
    return {{0.5F, 0.1666657667F, 0.04166655421F, 0.008363232884F, 0.001392625083F}};
  }
  /// p of log(1 + u) = 2s + s³ p(s²), s = u / (2 + u) ≤ ⅓: 4e-10
  static FASTNTK_INLINE constexpr Coefficients<float, 5> log1p() {
    return {{0.6666666732F, 0.3999970633F, 0.2859235799F, 0.217065758F, 0.2322432922F}};
  }
  /// p of erf(x) = x p(x²), |x| ≤ 1: 1.3e-9
  static FASTNTK_INLINE constexpr Coefficients<float, 7> erf() {
    return {{1.128379166F, -0.3761262667F, 0.1128359472F, -0.02685421201F, 0.005189087423F, -0.0008016864287F,
             7.875875063e-5F}};
  }
  /// p of (1 + 2z) exp(z²) erfc(z) = p((z − k) / (z + k)), 0 ≤ z ≤ z_high, above which erfc is 0: 3e-8
  static constexpr float erfc_k = 2.5F, erfc_high = 11;
  static FASTNTK_INLINE constexpr Coefficients<float, 10> erfc() {
    return {{1.264838173F, -0.1223569094F, -0.09902350683F, 0.1576334219F, -0.1029813897F, 0.03273444444F,
             0.0009995808209F, -0.004289505748F, 0.000362610134F, 0.0004740459911F}};
  }
  static constexpr float tanh_high = 10;  // tanh is 1 above
};
template <>
struct Constants<double> {
  static constexpr int mantissa = 52;
  static constexpr double exp_low = -746, exp_high = 710;
  static constexpr double round = 0x1.8p52, bias = 1023;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 1.90821492927058770002e-10;
  /// 1.3e-17
  static FASTNTK_INLINE constexpr Coefficients<double, 10> exp() {
    return {{0.5, 0.166666666666666675, 0.0416666666666238205, 0.0083333333333300382, 0.00138888889173670806,
             0.00019841269863171556, 0.0000248015210578682052, 2.75572682769056962e-6, 2.76202015910315488e-7,
             2.5100472505694996e-8}};
  }
  /// 4e-21
  static FASTNTK_INLINE constexpr Coefficients<double, 12> log1p() {
    return {{0.666666666666666667, 0.400000000000000155, 0.285714285714219433, 0.222222222233319868,
             0.181818180860056555, 0.153846202538041624, 0.133331769491381785, 0.117679977672410362,
             0.104803992343652741, 0.0994202489655473463, 0.063341108517702454, 0.152312626194289848}};
  }
  /// 1.5e-19
  static FASTNTK_INLINE constexpr Coefficients<double, 13> erf() {
    return {{1.12837916709551257, -0.376126389031837481, 0.112837916709548787, -0.0268661706450767932,
             0.00522397762481801447, -0.000854832698083378991, 0.000120553311116427109, -0.0000149255952668311816,
             1.6461000484121368e-6, -1.6350312701054695e-7, 1.46597752740474358e-8, -1.13728488567916737e-9,
             5.9571761477489114e-11}};
  }
  /// 1.5e-17
  static constexpr double erfc_k = 3.75, erfc_high = 28;
  static FASTNTK_INLINE constexpr Coefficients<double, 23> erfc() {
    return {{1.23751263083782758,      -0.140240598585546681,    0.00358541548546377914,    0.0822767384901120369,
             -0.108803930141712359,    0.0923043211615311556,    -0.0586933985903094125,    0.0283622774004577225,
             -0.00974657955343187366,  0.00175562601715200385,   0.00029371366631088616,    -0.000290154965295709261,
             0.0000516489134695998619, 0.0000223872596382301343, -0.0000114429909268054383, -9.80166675585857751e-7,
             1.74811904683919643e-6,   -4.81583962167284902e-8,  -2.52614652677155047e-7,   1.59963352155737078e-8,
             3.28508355623331591e-8,   -8.78212573480352024e-10, -2.41082153654223304e-9}};
  }
  static constexpr double tanh_high = 20;
};

// c[0] + c[1] x + c[2] x² + …
template <class V, int n>
FASTNTK_INLINE V polynomial(V x, Coefficients<Element<V>, n> c) {
  V y = c.of[n - 1] - V{};
  FASTNTK_UNROLL
  for (int i = n - 2; i >= 0; i--) y = y * x + c.of[i];
  return y;
}

template <class V>
FASTNTK_INLINE V at_least(V x, Element<V> low) {
  return x < low ? low - V{} : x;
}
template <class V>
FASTNTK_INLINE V at_most(V x, Element<V> high) {
  return x > high ? high - V{} : x;
}
template <class V>
FASTNTK_INLINE V absolute(V x) {
  return x < Element<V>(0) ? -x : x;
}

// 2ⁿ for integers −bias < n ≤ bias.
template <class V>
FASTNTK_INLINE V power_of_two(V n) {
  using C = Constants<Element<V>>;
  using Bits = typename ElementsOf<V>::Bits;
  return __builtin_bit_cast(V, __builtin_bit_cast(Bits, n + (C::round + C::bias)) << C::mantissa);
}

// x = n ln 2 + r with |r| ≤ ½ ln 2.
template <class V>
FASTNTK_INLINE V reduce_by_ln2(V x, V& r) {
  using C = Constants<Element<V>>;
  const V n = (x * Element<V>(1.4426950408889634074) + C::round) - C::round;
  r = (x - n * C::ln2_high) - n * C::ln2_low;
  return n;
}

template <class V>
FASTNTK_INLINE V exp(V x) {
  using C = Constants<Element<V>>;
  V r;
  const V n = reduce_by_ln2(at_most(at_least(x, C::exp_low), C::exp_high), r);
  const V p = r * r * polynomial(r, C::exp()) + r + Element<V>(1);
  // In two factors, so that the result may overflow or be subnormal while neither factor is.
  const V half = (n * Element<V>(0.5) + C::round) - C::round;
  return p * power_of_two(half) * power_of_two(n - half);
}

// log(1 + u) for 0 ≤ u ≤ 1.
template <class V>
FASTNTK_INLINE V log1p_of_fraction(V u) {
  const V s = u / (u + Element<V>(2)), w = s * s;
  return s * w * polynomial(w, Constants<Element<V>>::log1p()) + (s + s);
}

template <class V>
FASTNTK_INLINE V tanh(V x) {
  using C = Constants<Element<V>>;
  // m = exp(2|x|) − 1 without cancellation: 2ⁿ (eʳ − 1) + (2ⁿ − 1), n ≥ 0.
  V r;
  const V n = reduce_by_ln2(at_most(absolute(x), C::tanh_high) * Element<V>(2), r);
  const V scale = power_of_two(n);
  const V m = (r * r * polynomial(r, C::exp()) + r) * scale + (scale - Element<V>(1));
  const V y = m / (m + Element<V>(2));
  return x < Element<V>(0) ? -y : y;
}

// erfc(z) / exp(−z²) for z ≥ 0.
template <class V>
FASTNTK_INLINE V scaled_erfc(V z) {
  using C = Constants<Element<V>>;
  const V bounded = at_most(z, C::erfc_high);
  return polynomial((bounded - C::erfc_k) / (bounded + C::erfc_k), C::erfc()) / (bounded + bounded + Element<V>(1));
}

template <class V>
FASTNTK_INLINE V erf(V x) {
  const V z = absolute(x), near = x * polynomial(x * x, Constants<Element<V>>::erf());
  const V far = Element<V>(1) - exp(-z * z) * scaled_erfc(z);
  return z < Element<V>(1) ? near : x < Element<V>(0) ? -far : far;
}

// 1 / (1 + exp(−x)) and its derivative.
template <class V>
FASTNTK_INLINE V sigmoid(V x, V& derivative) {
  const V e = exp(-absolute(x)), y = Element<V>(1) / (e + Element<V>(1));
  derivative = e * y * y;
  return x < Element<V>(0) ? e * y : y;
}
template <class V>
FASTNTK_INLINE V sigmoid(V x) {
  V derivative;
  return sigmoid(x, derivative);
}

// log(1 + eˣ)
template <class V>
FASTNTK_INLINE V softplus(V x) {
  return at_least(x, Element<V>(0)) + log1p_of_fraction(exp(-absolute(x)));
}

// The normal distribution Φ(x) with a small relative error on both sides, and e = exp(−x²/2).
template <class V>
FASTNTK_INLINE V normal_distribution(V x, V& e) {
  const V z = absolute(x) * Element<V>(0.70710678118654752440);
  e = exp(x * x * Element<V>(-0.5));
  const V tail = e * scaled_erfc(z) * Element<V>(0.5);
  return x < Element<V>(0) ? tail : Element<V>(1) - tail;
}

// x Φ(x)
template <class V>
FASTNTK_INLINE V gelu(V x) {
  V e;
  return x * normal_distribution(x, e);
}
// Φ(x) + x φ(x)
template <class V>
FASTNTK_INLINE V gelu_derivative(V x) {
  V e;
  const V cdf = normal_distribution(x, e);
  return x * e * Element<V>(0.39894228040143267794) + cdf;
}

// ½ x (1 + tanh u), u = √(2/π) (x + 0.044715 x³)
template <class V>
FASTNTK_INLINE V gelu_tanh_argument(V x) {
  return x * (x * x * Element<V>(0.79788456080286535588 * 0.044715) + Element<V>(0.79788456080286535588));
}
template <class V>
FASTNTK_INLINE V gelu_tanh(V x) {
  return x * sigmoid(gelu_tanh_argument(x) * Element<V>(2));
}
// s + x s' 2u', s = ½ (1 + tanh u) = sigmoid(2u)
template <class V>
FASTNTK_INLINE V gelu_tanh_derivative(V x) {
  V slope;
  const V s = sigmoid(gelu_tanh_argument(x) * Element<V>(2), slope);
  const V inner = x * x * Element<V>(6 * 0.79788456080286535588 * 0.044715) + Element<V>(2 * 0.79788456080286535588);
  return slope * x * inner + s;
}

/// The formula of any kind: those above, and those of scalar.h.
template <UnaryKind kind, class V>
FASTNTK_INLINE V evaluate_special(V x) {
  if constexpr (kind == UnaryKind::exp)
    return exp(x);
  else if constexpr (kind == UnaryKind::tanh)
    return tanh(x);
  else if constexpr (kind == UnaryKind::erf)
    return erf(x);
  else if constexpr (kind == UnaryKind::sigmoid)
    return sigmoid(x);
  else if constexpr (kind == UnaryKind::softplus)
    return softplus(x);
  else if constexpr (kind == UnaryKind::silu)
    return x * sigmoid(x);
  else if constexpr (kind == UnaryKind::gelu)
    return gelu(x);
  else if constexpr (kind == UnaryKind::gelu_derivative)
    return gelu_derivative(x);
  else if constexpr (kind == UnaryKind::gelu_tanh)
    return gelu_tanh(x);
  else {
    static_assert(kind == UnaryKind::gelu_tanh_derivative, "a kind that scalar.h evaluates");
    return gelu_tanh_derivative(x);
  }
}

}  // namespace
}  // namespace fastntk::special
