#include "engine/cpu/isa/map.h"

#include "engine/cpu/isa/vector.h"
#include "engine/kernels/scalar.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

template <UnaryKind kind, class T>
void unary(int64_t n, T p, const T* x, int64_t sx, T* __restrict y) {
  if (sx == 1)
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(x[i], p);
  else
    for (int64_t i = 0; i < n; i++) y[i] = evaluate<kind>(x[i * sx], p);
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
  return {{unary<UnaryKind::scale, T>, unary<UnaryKind::shift, T>, unary<UnaryKind::relu, T>, unary<UnaryKind::step, T>,
           unary<UnaryKind::exp, T>, unary<UnaryKind::log, T>, unary<UnaryKind::sqrt, T>, unary<UnaryKind::square, T>,
           unary<UnaryKind::reciprocal, T>, unary<UnaryKind::power, T>},
          {binary<BinaryKind::add, T>, binary<BinaryKind::subtract, T>, binary<BinaryKind::multiply, T>,
           binary<BinaryKind::divide, T>, binary<BinaryKind::where_positive, T>, binary<BinaryKind::equal, T>}};
}

}  // namespace

extern const MapTable map_table;
const MapTable map_table = {loops<float>(), loops<double>()};

}  // namespace fastntk::cpu::FASTNTK_ISA
