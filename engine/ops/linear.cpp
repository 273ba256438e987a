#include "engine/ops/linear.h"

#include "engine/backend.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

Variable turned(const Variable& x) { return transpose(x, -2, -1); }
Shape batch_of(const Shape& matrices) { return matrices.leading(matrices.rank() - 2); }

// [lead…, batch…, rows, columns] → [lead…, batch · rows, columns], where the last `rank` axes are not lead.
Variable join_rows(const Variable& x, int rank) {
  const int64_t rows = x.shape().trailing(rank).leading(rank - 1).elements();
  return reshape(x, x.shape().leading(x.rank() - rank) + Shape{rows, x.extent(-1)});
}

// A product of matrices a and b or bᵀ whose batch axes broadcast.
struct Product : Op {
  Product(const OpInfo& info, bool weight) : Op(info), weight(weight) {}
  bool weight;  // b is one, and may be kept in the form that the kernel reads

  Needs needs(ActiveSet active) const override { return {.inputs = (active & 2U) >> 1 | (active & 1U) << 1}; }

  // Whether the inner extents agree and the batch axes broadcast; returns the shape of the output.
  Shape product(const Shape& a, const Shape& b, int64_t inner, int64_t columns) const {
    require(a[-1] == inner && inner >= 0, "{}: the inner extents of {} and {} differ", name(), a.str(), b.str());
    return broadcast(batch_of(a), batch_of(b), name().c_str()) + Shape{a[-2], columns};
  }
  // A tangent of input i with as many axes as the output has, after its leading ones.
  static Variable aligned(const Linearisation& at, int i, const Variable& t) {
    const Shape& own = at.input_shape(i);
    const Shape ones = Shape::filled(at.output_shape().rank() - own.rank(), 1);
    return reshape(t, t.shape().leading(t.rank() - own.rank()) + ones + own);
  }
  // Σ uᵀ v over the axes along which b was broadcast, where {u, v} are a and the cotangent in one order or the other.
  static Variable to_b(const Linearisation& at, const Variable& u, const Variable& v, const Variable& cotangent) {
    const Shape &a = at.input_shape(0), &b = at.input_shape(1), &y = at.output_shape();
    if (batch_of(b).elements() != 1 || batch_of(a) != batch_of(y)) return sum_to(matmul(turned(u), v), b, y.rank());
    // One b for the whole batch: the sum over the batch is part of one product.
    const Variable sum = matmul(turned(join_rows(u, y.rank())), join_rows(v, y.rank()));
    return reshape(sum, cotangent.shape().leading(cotangent.rank() - y.rank()) + b);
  }
  static Variable to_a(const Linearisation& at, const Variable& product) {
    return sum_to(product, at.input_shape(0), at.output_shape().rank());
  }
};

// y = a b.   Transpose: c bᵀ and aᵀ c.
struct Matmul final : Product {
  static inline const OpInfo& info = register_op({"matmul", "y = a b", "dy = da b + a db"});
  explicit Matmul(bool weight = false) : Product(info, weight) {}

  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= 2 && in[1].rank() >= 2, "matmul needs matrices, got {} and {}", in[0].str(), in[1].str());
    return product(in[0], in[1], in[1][-2], in[1][-1]);
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    backend_of(in[0]).gemm(in[0], in[1], out, weight);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return add_defined(t[0].defined() ? matmul(aligned(at, 0, t[0]), at.input(1)) : Variable{},
                       t[1].defined() ? matmul(at.input(0), aligned(at, 1, t[1])) : Variable{});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_a(at, matmul(c, turned(at.input(1)))) : Variable{},
            at.active(1) ? to_b(at, at.input(0), c, c) : Variable{}};
  }
  // A matrix without a batch axis has rows, or terms of the sum, for samples.
  bool mixes_samples(std::span<const Shape> in) const override { return in[0].rank() < 3 || in[1].rank() < 3; }
};

// y = x wᵀ.   Transpose: c w and cᵀ x.
struct Linear final : Product {
  static inline const OpInfo& info = register_op({"linear", "y = x wᵀ", "dy = dx wᵀ + x dwᵀ"});
  Linear() : Product(info, true) {}

  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= 3 && in[1].rank() >= 3,
            "linear needs x [N, T, I] and weights [1 or N, O, I], got {} and {}", in[0].str(), in[1].str());
    return product(in[0], in[1], in[1][-1], in[1][-2]);
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    backend_of(in[0]).gemm(in[0], in[1].transpose(-2, -1), out, weight);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return add_defined(t[0].defined() ? linear(aligned(at, 0, t[0]), at.input(1)) : Variable{},
                       t[1].defined() ? linear(at.input(0), aligned(at, 1, t[1])) : Variable{});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {at.active(0) ? to_a(at, apply(Matmul(weight), {c, at.input(1)})) : Variable{},
            at.active(1) ? to_b(at, c, at.input(0), c) : Variable{}};
  }
};

}  // namespace

Variable matmul(const Variable& a, const Variable& b) { return apply(Matmul(), {a, b}); }
Variable linear(const Variable& x, const Variable& weight) { return apply(Linear(), {x, weight}); }

}  // namespace fastntk
