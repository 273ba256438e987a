// Element-by-element ops. Binary ones broadcast over axes of extent 1 and over missing leading axes.
#pragma once
#include "engine/op.h"

namespace fastntk {

Variable add(const Variable& a, const Variable& b);
Variable subtract(const Variable& a, const Variable& b);
Variable multiply(const Variable& a, const Variable& b);
Variable divide(const Variable& a, const Variable& b);
/// a where b > 0, else 0; linear in a, constant in b.
Variable where_positive(const Variable& a, const Variable& b);
/// factor · x
Variable scale(const Variable& x, double factor);
/// x + offset
Variable shift(const Variable& x, double offset);
Variable negate(const Variable& x);
/// max(0, x), with derivative 0 at 0.
Variable relu(const Variable& x);
Variable exp(const Variable& x);
Variable log(const Variable& x);
Variable sqrt(const Variable& x);
Variable square(const Variable& x);
Variable sin(const Variable& x);
Variable cos(const Variable& x);
/// x^exponent; NaN where x < 0 and the exponent is no integer.
Variable pow(const Variable& x, double exponent);
/// a^b. The derivative in b is NaN where a < 0.
Variable pow(const Variable& a, const Variable& b);

inline Variable operator+(const Variable& a, const Variable& b) { return add(a, b); }
inline Variable operator-(const Variable& a, const Variable& b) { return subtract(a, b); }
inline Variable operator*(const Variable& a, const Variable& b) { return multiply(a, b); }
inline Variable operator/(const Variable& a, const Variable& b) { return divide(a, b); }
inline Variable operator*(double factor, const Variable& x) { return scale(x, factor); }
inline Variable operator-(const Variable& x) { return negate(x); }

/// a + b where an undefined side is zero.
Variable add_defined(const Variable& a, const Variable& b);

}  // namespace fastntk
