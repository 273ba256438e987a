#include "engine/ops/softmax.h"

#include "engine/backend.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/gather.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

// ⟨a, b⟩ over the last axis, which stays with extent 1.
Variable dot(const Variable& a, const Variable& b) { return sum(a * b, {-1}); }
// The last axis dropped, and put back with extent 1.
Variable drop_last(const Variable& x) { return reshape(x, x.shape().leading(x.rank() - 1)); }
Variable add_last(const Variable& x) { return reshape(x, x.shape() + Shape{1}); }

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
    const Variable e = exp(in[0] - max(in[0], -1));
    return (e / sum(e, {-1})).value;
  }
  static Variable map(const Variable& y, const Variable& t) { return y * (t - dot(y, t)); }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override { return map(at.output(), t[0]); }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override { return {map(at.output(), c)}; }
};

// y = log softmax(x).   dy = dx − ⟨p, dx⟩, transposed c − p Σ c, where p = exp(y).
struct LogSoftmax final : AlongLast {
  static inline const OpInfo& info = register_op({"log_softmax", "y = x − log Σ exp(x)", "dy = dx − ⟨exp(y), dx⟩"});
  LogSoftmax() : AlongLast(info) {}
  Needs needs(ActiveSet) const override { return {.output = true}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Variable z = in[0] - max(in[0], -1);
    return (z - log(sum(exp(z), {-1}))).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return t[0] - dot(exp(at.output()), t[0]);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {c - exp(at.output()) * sum(c, {-1})};
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
    const Variable largest = max(in[0], -1);
    return (largest + log(sum(exp(in[0] - largest), {-1}))).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return dot(exp(at.input(0) - at.output()), t[0]);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {exp(at.input(0) - at.output()) * c};
  }
};

// A loss per sample whose gradient in x is known: dy = ⟨g, dx⟩, transposed g c. Inputs {x [N, C], what to compare
// with}.
struct Loss : Op {
  using Op::Op;
  virtual Variable gradient(const Linearisation& at) const = 0;
  Needs needs(ActiveSet) const override { return {.inputs = 3}; }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return drop_last(dot(gradient(at), t[0]));
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {gradient(at) * add_last(c), {}};
  }
  bool mixes_samples(std::span<const Shape> in) const override { return in[0].rank() == 1; }
};

// y = −⟨t, log softmax(x)⟩ with t = (1 − s) onehot(label) + s / C.   dy = ⟨softmax(x) − t, dx⟩.
struct CrossEntropy final : Loss {
  static inline const OpInfo& info =
      register_op({"cross_entropy", "y = −⟨t, log softmax(x)⟩", "dy = ⟨softmax(x) − t, dx⟩"});
  explicit CrossEntropy(double smoothing) : Loss(info), smoothing(smoothing) {}
  double smoothing;

  std::string attributes() const override { return fmt::format("smoothing={}", smoothing); }
  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= 1 && in[0][-1] > 0 && in[1] == in[0].leading(in[0].rank() - 1),
            "cross_entropy needs logits [N, C] and N labels, got {} and {}", in[0].str(), in[1].str());
    return in[1];
  }
  Variable target(const Tensor& labels, const Variable& x) const {
    const int64_t classes = x.extent(-1);
    const Variable t = one_hot(labels, classes, x.dtype());
    return smoothing == 0 ? t : shift(scale(t, 1 - smoothing), smoothing / static_cast<double>(classes));
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return drop_last(negate(dot(target(in[1], in[0]), log_softmax(in[0])))).value;
  }
  Variable gradient(const Linearisation& at) const override {
    return softmax(at.input(0)) - target(at.input(1).value, at.input(0));
  }
};

// y = ½ ‖x − t‖².   dy = ⟨x − t, dx⟩.
struct SquaredError final : Loss {
  static inline const OpInfo& info = register_op({"squared_error", "y = ½ ‖x − t‖²", "dy = ⟨x − t, dx⟩"});
  SquaredError() : Loss(info) {}
  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= 1 && in[0] == in[1], "squared_error: {} against targets {}", in[0].str(), in[1].str());
    return in[0].leading(in[0].rank() - 1);
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return drop_last(scale(sum(square(in[0] - in[1]), {-1}), 0.5)).value;
  }
  Variable gradient(const Linearisation& at) const override { return at.input(0) - at.input(1); }
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

Variable cross_entropy(const Variable& logits, const Tensor& labels, double smoothing) {
  require(smoothing >= 0 && smoothing < 1, "cross_entropy: the label smoothing must be in [0, 1), got {}", smoothing);
  return apply(CrossEntropy(smoothing), {logits, labels});
}

Variable squared_error(const Variable& x, const Tensor& targets) {
  return apply(SquaredError(), {x, targets.to(x.dtype())});
}

Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype) {
  require(labels.dtype() == DType::int64, "one_hot: labels must be int64, got {}", labels.describe());
  const std::vector<int64_t> values = labels.to_vector<int64_t>();
  for (size_t i = 0; i < values.size(); i++)
    require(values[i] >= 0 && values[i] < classes, "label {} of sample {} is not a class: there are {}, from 0 to {}",
            values[i], i, classes, classes - 1);
  const Shape column = labels.shape() + Shape{1};
  return scatter_add(Tensor::full({}, 1, dtype).expand(column), -1, labels.reshape(column), classes).value;
}

}  // namespace fastntk
