#include "engine/cpu/isa/map.h"

#include "engine/cpu/isa/vector_math.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

template <UnaryKind kind, class T>
void unary(int64_t n, T p, const T* x, int64_t sx, T* __restrict y) {
  if (sx == 1)
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(x[i], p);
  else
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(x[i * sx], p);
}

// A register at a time; what does not lie side by side, or is less than a register, goes through a copy that does.
template <UnaryKind kind, class T>
void unary_vector(int64_t n, T, const T* x, int64_t sx, T* __restrict y) {
  int64_t i = 0;
  if (sx == 1)
    for (; i + lanes<T> <= n; i += lanes<T>) store(y + i, evaluate_special<kind>(load(x + i)));
  for (; i < n; i += lanes<T>) {
    const int64_t some = n - i < lanes<T> ? n - i : lanes<T>;
    T part[lanes<T>] = {};
    for (int64_t j = 0; j < some; j++) part[j] = x[(i + j) * sx];
    store(part, evaluate_special<kind>(load(part)));
    for (int64_t j = 0; j < some; j++) y[i + j] = part[j];
  }
}

template <BinaryKind kind, class T>
void binary(int64_t n, const T* a, int64_t sa, const T* b, int64_t sb, T* __restrict y) {
  if (sa == 1 && sb == 1) {
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(a[i], b[i]);
  } else if (sa == 1 && sb == 0) {
    const T v = *b;
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(a[i], v);
  } else if (sa == 0 && sb == 1) {
    const T v = *a;
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(v, b[i]);
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(a[i * sa], b[i * sb]);
  }
}

template <class T>
constexpr MapLoops<T> loops() {
  return {{unary<UnaryKind::scale, T>,
           unary<UnaryKind::shift, T>,
           unary<UnaryKind::relu, T>,
           unary<UnaryKind::step, T>,
           unary<UnaryKind::log, T>,
           unary<UnaryKind::sqrt, T>,
           unary<UnaryKind::square, T>,
           unary<UnaryKind::reciprocal, T>,
           unary<UnaryKind::power, T>,
           unary<UnaryKind::abs, T>,
           unary<UnaryKind::sign, T>,
           unary<UnaryKind::at_least, T>,
           unary<UnaryKind::at_most, T>,
           unary<UnaryKind::sin, T>,
           unary<UnaryKind::cos, T>,
           unary_vector<UnaryKind::exp, T>,
           unary_vector<UnaryKind::tanh, T>,
           unary_vector<UnaryKind::erf, T>,
           unary_vector<UnaryKind::sigmoid, T>,
           unary_vector<UnaryKind::softplus, T>,
           unary_vector<UnaryKind::silu, T>,
           unary_vector<UnaryKind::gelu, T>,
           unary_vector<UnaryKind::gelu_derivative, T>,
           unary_vector<UnaryKind::gelu_tanh, T>,
           unary_vector<UnaryKind::gelu_tanh_derivative, T>},
          {binary<BinaryKind::add, T>, binary<BinaryKind::subtract, T>, binary<BinaryKind::multiply, T>,
           binary<BinaryKind::divide, T>, binary<BinaryKind::where_positive, T>, binary<BinaryKind::equal, T>,
           binary<BinaryKind::power, T>, binary<BinaryKind::maximum, T>, binary<BinaryKind::minimum, T>,
           binary<BinaryKind::compare, T>}};
}

}  // namespace

extern const MapTable map_table;
const MapTable map_table = {loops<float>(), loops<double>()};

}  // namespace fastntk::cpu::FASTNTK_ISA
