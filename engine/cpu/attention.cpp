#include "engine/cpu/attention.h"

#include <algorithm>

#include "engine/cpu/gemm.h"
#include "engine/cpu/isa/gemm.h"
#include "engine/cpu/isa/map.h"
#include "engine/cpu/isa/softmax.h"
#include "engine/cpu/strided.h"
#include "engine/parallel.h"

// A head's matrices fit the caches nearest to the processor, so all its products follow each other there, and the
// probabilities are never stored. Rows of q, k, v lie thousands of bytes apart, a distance at which they compete for a
// few lines of the cache; what is read more than once is copied together first.
namespace fastntk::cpu {
namespace {

const GemmKernels<float>& gemm_of(float) { return FASTNTK_DISPATCH(gemm_table).f32; }
const GemmKernels<double>& gemm_of(double) { return FASTNTK_DISPATCH(gemm_table).f64; }
const SoftmaxRows<float>& softmax_of(float) { return FASTNTK_DISPATCH(softmax_table).float32; }
const SoftmaxRows<double>& softmax_of(double) { return FASTNTK_DISPATCH(softmax_table).float64; }
const MapLoops<float>& map_of(float) { return FASTNTK_DISPATCH(map_table).float32; }
const MapLoops<double>& map_of(double) { return FASTNTK_DISPATCH(map_table).float64; }

// A matrix in memory; rows `stride` elements apart.
template <class T>
struct Matrix {
  T* data;
  int64_t stride;
  T* row(int64_t i) const { return data + i * stride; }
};

// The matrix of item `item` of the axes before the last two.
template <class T>
Matrix<const T> matrix(const Tensor& t, int64_t item) {
  return {t.data<T>() + offset_of(t, t.rank() - 2, item), t.strides()[-2]};
}

// A right operand of products, in panels of two registers' width, the last one perhaps one register wide.
template <class T>
class Operand {
 public:
  Operand(int64_t depth, int64_t columns)
      : depth_(depth), columns_(columns), panels_(static_cast<size_t>(depth * round_up(columns)) * sizeof(T)) {}

  void copy(Matrix<const T> x) const {
    for (int64_t j = 0; j < columns_; j += width())
      kernel().copy(depth_, some(j), x.data + j, x.stride, panel(j), round_up(some(j)));
  }
  void copy_transposed(Matrix<const T> x) const {
    for (int64_t j = 0; j < columns_; j += width())
      kernel().transpose(some(j), depth_, x.row(j), x.stride, panel(j), round_up(some(j)));
  }
  // y = x · this
  void multiply(int64_t rows, Matrix<const T> x, Matrix<T> y) const {
    if (depth_ == 0)  // a sum of nothing
      for (int64_t i = 0; i < rows; i++) std::fill_n(y.row(i), columns_, T(0));
    for (int64_t j = 0; j < columns_; j += width())
      for (int64_t k = 0; k < depth_; k += depth_block)
        kernel().multiply(rows, some(j), std::min(depth_block, depth_ - k), x.data + k, x.stride,
                          panel(j) + k * round_up(some(j)), round_up(some(j)), y.data + j, y.stride, k > 0, {}, {});
  }

 private:
  static const GemmKernels<T>& kernel() { return gemm_of(T()); }
  static int64_t round_up(int64_t n) { return (n + kernel().lanes - 1) / kernel().lanes * kernel().lanes; }
  static int64_t width() { return 2 * kernel().lanes; }
  int64_t some(int64_t j) const { return std::min(width(), columns_ - j); }
  T* panel(int64_t j) const { return panels_.as<T>() + j * depth_; }

  int64_t depth_, columns_;
  Buffer panels_;
};

// Scratch for a matrix.
template <class T>
class Scratch {
 public:
  Scratch(int64_t rows, int64_t columns)
      : rows_(rows), columns_(columns), buffer_(static_cast<size_t>(rows * columns) * sizeof(T)) {}
  T* data() const { return buffer_.as<T>(); }
  Matrix<T> matrix() const { return {data(), columns_}; }
  Matrix<const T> values() const { return {data(), columns_}; }
  // ← factor · x
  void copy_scaled(T factor, Matrix<const T> x) const {
    const auto scale = map_of(T()).unary[static_cast<size_t>(UnaryKind::scale)];
    for (int64_t i = 0; i < rows_; i++) scale(columns_, factor, x.row(i), 1, matrix().row(i));
  }

 private:
  int64_t rows_, columns_;
  Buffer buffer_;
};

// Scratch for x ᵀ, x [rows, columns].
template <class T>
class Transposed {
 public:
  Transposed(int64_t rows, int64_t columns)
      : rows_(rows), columns_(columns), scratch_(columns, (rows + lanes() - 1) / lanes() * lanes()) {}
  Matrix<const T> of(Matrix<const T> x) const {
    gemm_of(T()).transpose(rows_, columns_, x.data, x.stride, scratch_.data(), scratch_.matrix().stride);
    return scratch_.values();
  }

 private:
  static int64_t lanes() { return gemm_of(T()).lanes; }
  int64_t rows_, columns_;
  Scratch<T> scratch_;
};

struct Extents {
  int64_t items, T, S, d, e;
  Extents(const Tensor& q, const Tensor& k, const Tensor& v)
      : items(q.shape().leading(q.rank() - 2).elements()),
        T(q.extent(-2)),
        S(k.extent(-2)),
        d(q.extent(-1)),
        e(v.extent(-1)) {}
  // Items that are worth a thread's attention, where one is `stack` passes.
  int64_t grain(int64_t stack) const {
    return std::max<int64_t>(1, (1 << 17) / std::max<int64_t>(1, stack * T * S * (d + e)));
  }
};

// P = softmax(q̃ kᵀ) with q̃ = α q.
template <class T>
class Probabilities {
 public:
  explicit Probabilities(const Extents& x)
      : x_(x), queries_(x.T, x.d), keys_(x.d, x.S), logits_(x.T, x.S), p_(x.T, x.S) {}
  void compute(T scale, Matrix<const T> q, Matrix<const T> k) const {
    queries_.copy_scaled(scale, q);
    keys_.copy_transposed(k);
    keys_.multiply(x_.T, queries_.values(), logits_.matrix());
    softmax_of(T()).forward[static_cast<size_t>(SoftmaxKind::softmax)](x_.T, x_.S, logits_.data(), p_.data());
  }
  Matrix<const T> values() const { return p_.values(); }
  Matrix<const T> scaled_queries() const { return queries_.values(); }

 private:
  Extents x_;
  Scratch<T> queries_;
  Operand<T> keys_;
  Scratch<T> logits_, p_;
};

}  // namespace

void attention(const Backend::Attention& arguments) {
  const auto& [q, k, v, scale, y] = arguments;
  const Extents x(q, k, v);
  if (y.elements() == 0) return;
  for_floating(q.dtype(), "attention", [&](auto zero) {
    using E = decltype(zero);
    E* const out = y.template mutable_data<E>();
    parallel_ranges(x.items, x.grain(1), [&](int64_t from, int64_t to) {
      const Probabilities<E> p(x);
      const Operand<E> values(x.S, x.e);
      for (int64_t i = from; i < to; i++) {
        p.compute(static_cast<E>(scale), matrix<E>(q, i), matrix<E>(k, i));
        values.copy(matrix<E>(v, i));
        values.multiply(x.T, p.values(), {out + offset_of(y, y.rank() - 2, i), y.strides()[-2]});
      }
    });
  });
}

void attention_transposed(const Backend::AttentionTransposed& a) {
  const Extents x(a.q, a.k, a.v);
  const int64_t stack = a.cotangent.extent(0);
  if (x.items * stack == 0) return;
  for_floating(a.q.dtype(), "attention", [&](auto zero) {
    using E = decltype(zero);
    const auto map = softmax_of(zero).map[static_cast<size_t>(SoftmaxMap::softmax)];
    const auto begin = [](Tensor* t) { return t ? t->mutable_data<E>() : nullptr; };
    E *const dq = begin(a.dq), *const dk = begin(a.dk), *const dv = begin(a.dv);
    const auto at = [&](E* data, const Tensor* t, int64_t item) {
      return Matrix<E>{data + offset_of(*t, t->rank() - 2, item), t->strides()[-2]};
    };
    parallel_ranges(x.items, x.grain(stack), [&](int64_t from, int64_t to) {
      const Probabilities<E> p(x);
      const Scratch<E> scaled_keys(x.S, x.d), dP(x.T, x.S), dS(x.T, x.S), cotangent(x.T, x.e);
      const Operand<E> values(x.e, x.S), keys(x.S, x.d), queries(x.T, x.d), cotangents(x.T, x.e);
      const Transposed<E> turned_p(x.T, x.S), turned_dS(x.T, x.S);
      for (int64_t i = from; i < to; i++) {
        p.compute(static_cast<E>(a.scale), matrix<E>(a.q, i), matrix<E>(a.k, i));
        if (dq || dk) values.copy_transposed(matrix<E>(a.v, i));
        if (dq) {  // dq = α dS k
          scaled_keys.copy_scaled(static_cast<E>(a.scale), matrix<E>(a.k, i));
          keys.copy(scaled_keys.values());
        }
        if (dk) queries.copy(p.scaled_queries());  // dk = dSᵀ α q
        const Matrix<const E> pT = dv ? turned_p.of(p.values()) : Matrix<const E>{};
        for (int64_t c = 0; c < stack; c++) {
          const int64_t item = c * x.items + i;
          const Matrix<const E> given = matrix<E>(a.cotangent, item);
          if (dv) {  // dv = Pᵀ c
            cotangents.copy(given);
            cotangents.multiply(x.S, pT, at(dv, a.dv, item));
          }
          if (!dq && !dk) continue;
          // dP = c vᵀ, dS = P ⊙ (dP − ⟨P, dP⟩)
          cotangent.copy_scaled(1, given);
          values.multiply(x.T, cotangent.values(), dP.matrix());
          for (int64_t t = 0; t < x.T; t++) map(x.S, p.values().row(t), dP.matrix().row(t), dS.matrix().row(t));
          if (dq) keys.multiply(x.T, dS.values(), at(dq, a.dq, item));
          if (dk) queries.multiply(x.S, turned_dS.of(dS.values()), at(dk, a.dk, item));
        }
      }
    });
  });
}

}  // namespace fastntk::cpu
