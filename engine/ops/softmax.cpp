#include "engine/ops/softmax.h"

#include "engine/backend.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/gather.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

// ⟨a, b⟩ over the last axis, which stays with extent 1.
Variable dot(const Variable& a, const Variable& b) { return sum(a * b, {-1}); }

// The kernel of that kind on the rows of x; the output's rows have `width` elements.
Tensor by_row(SoftmaxKind kind, const Tensor& x, int64_t width) {
  Shape shape = x.shape();
  shape[-1] = width;
  Tensor out(shape, x.dtype(), x.device());
  backend_of(x).softmax(kind, x, out);
  return out;
}
Variable mapped(SoftmaxMap kind, const Tensor& p, const Tensor& t) {
  Tensor out(t.shape(), t.dtype(), t.device());
  backend_of(t).softmax_map(kind, p, t, out);
  return Variable(out);
}

// The largest along one axis. Extra: its index, shaped like the output.
struct Max final : Op {
  static inline const OpInfo& info = register_op({"max", "y = max_axis x", "dy = dx at the index of the maximum"});
  explicit Max(int axis) : Op(info), axis(axis) {}
  int axis;  // negative

  std::string attributes() const override { return fmt::format("axis={}", axis); }
  Shape shape(std::span<const Shape> in) const override {
    Shape out = in[0];
    require(out[axis] > 0, "max({}) of {}: there is no largest of none", attributes(), in[0].str());
    out[axis] = 1;
    return out;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet active, std::vector<Tensor>& extras) const override {
    const Shape x = in[0].shape();
    Tensor out(shape(std::span(&x, 1)), in[0].dtype(), in[0].device());
    if (!active) {
      backend_of(in[0]).reduce(ReduceKind::max, in[0], out);
      return out;
    }
    // With the index: a pooling window as high as the image.
    const int at = x.rank() + axis;
    const int64_t outer = x.leading(at).elements(), inner = x.slice(at + 1, x.rank()).elements();
    const PoolShape window{.height = x[axis], .width = 1, .channels = inner, .kernel_height = x[axis]};
    Tensor largest = out.reshape({outer, 1, 1, inner}), index(largest.shape(), DType::int64, in[0].device());
    backend_of(in[0]).pool(PoolKind::max, window, in[0].reshape({outer, x[axis], 1, inner}), largest, &index);
    extras.push_back(index.reshape(out.shape()));
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return gather(t[0], axis, at.extra(0));
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {scatter_add(c, axis, at.extra(0), at.input_shape(0)[axis])};
  }
  bool mixes_samples(std::span<const Shape> in) const override { return axis == -in[0].rank(); }
};

// Ops along the last axis.
struct AlongLast : Op {
  using Op::Op;
  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= 1 && in[0][-1] > 0, "{} needs a last axis with at least one element, got {}", name(),
            in[0].str());
    return in[0];
  }
  bool mixes_samples(std::span<const Shape> in) const override { return in[0].rank() == 1; }
};

// y = softmax(x) over the last axis.   dy = y ⊙ (dx − ⟨y, dx⟩), self-adjoint: jvp and vjp are one function.
struct Softmax final : AlongLast {
  static inline const OpInfo& info = register_op({"softmax", "y = exp(x) / Σ exp(x)", "dy = y ⊙ (dx − ⟨y, dx⟩)"});
  Softmax() : AlongLast(info) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return by_row(SoftmaxKind::softmax, in[0], in[0].extent(-1));
  }
  static Variable map(const Linearisation& at, const Variable& t) {
    const Variable y = at.output();
    return at.recording() ? y * (t - dot(y, t)) : mapped(SoftmaxMap::softmax, y.value, t.value);
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override { return map(at, t[0]); }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override { return {map(at, c)}; }
};

// y = log softmax(x).   dy = dx − ⟨p, dx⟩, transposed c − p Σ c, where p = exp(y).
struct LogSoftmax final : AlongLast {
  static inline const OpInfo& info = register_op({"log_softmax", "y = x − log Σ exp(x)", "dy = dx − ⟨exp(y), dx⟩"});
  LogSoftmax() : AlongLast(info) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return by_row(SoftmaxKind::log_softmax, in[0], in[0].extent(-1));
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    const Variable p = exp(at.output());
    return at.recording() ? t[0] - dot(p, t[0]) : mapped(SoftmaxMap::log_softmax, p.value, t[0].value);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const Variable p = exp(at.output());
    return {at.recording() ? c - p * sum(c, {-1}) : mapped(SoftmaxMap::log_softmax_transposed, p.value, c.value)};
  }
};

// y = log Σ exp(x).   dy = ⟨p, dx⟩, transposed p c, where p = exp(x − y).
struct LogSumExp final : AlongLast {
  static inline const OpInfo& info = register_op({"logsumexp", "y = log Σ exp(x)", "dy = ⟨exp(x − y), dx⟩"});
  LogSumExp() : AlongLast(info) {}
  Shape shape(std::span<const Shape> in) const override {
    Shape out = AlongLast::shape(in);
    out[-1] = 1;
    return out;
  }
  Needs needs(ActiveSet) const override { return {.inputs = 1, .output = true}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return by_row(SoftmaxKind::logsumexp, in[0], 1);
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return dot(exp(at.input(0) - at.output()), t[0]);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {exp(at.input(0) - at.output()) * c};
  }
};

}  // namespace

Variable softmax(const Variable& x) { return apply(Softmax(), {x}); }
Variable log_softmax(const Variable& x) { return apply(LogSoftmax(), {x}); }
Variable logsumexp(const Variable& x) { return apply(LogSumExp(), {x}); }

Variable max(const Variable& x, int axis) {
  const int back = axis < 0 ? axis : axis - x.rank();
  require(back >= -x.rank() && back < 0, "max: axis {} of a tensor of rank {}", axis, x.rank());
  return apply(Max(back), {x});
}

}  // namespace fastntk
