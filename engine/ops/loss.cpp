#include "engine/ops/loss.h"

#include "engine/ops/activation.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/gather.h"
#include "engine/ops/reduce.h"
#include "engine/ops/softmax.h"
#include "engine/ops/unary.h"

namespace fastntk {
namespace {

// Sums of the last axis, which is dropped, and put back with extent 1.
Variable row_sum(const Variable& x) { return reshape(sum(x, {-1}), x.shape().leading(x.rank() - 1)); }
Variable add_last(const Variable& x) { return reshape(x, x.shape() + Shape{1}); }

// A loss per row whose gradient in x is known: dy = ⟨g, dx⟩, transposed g c. Inputs x [N, C] and constants of that
// shape.
struct RowLoss : Op {
  using Op::Op;
  virtual Variable gradient(const Linearisation& at) const = 0;
  Shape shape(std::span<const Shape> in) const override {
    for (const Shape& other : in)
      require(in[0].rank() >= 1 && in[0][-1] > 0 && other == in[0], "{}: {} against targets {}", name(), in[0].str(),
              other.str());
    return in[0].leading(in[0].rank() - 1);
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return row_sum(gradient(at) * t[0]);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    std::vector<Variable> out(static_cast<size_t>(at.inputs()));
    out[0] = gradient(at) * add_last(c);
    return out;
  }
  bool mixes_samples(std::span<const Shape> in) const override { return in[0].rank() == 1; }
};

// Inputs {x, q}, q the weighted targets.
struct CrossEntropy final : RowLoss {
  static inline const OpInfo& info =
      register_op({"cross_entropy", "y = −⟨q, log softmax(x)⟩", "dy = ⟨(Σ q) softmax(x) − q, dx⟩"});
  CrossEntropy() : RowLoss(info) {}
  Needs needs(ActiveSet) const override { return {.inputs = 3}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return negate(row_sum(Variable(in[1]) * log_softmax(in[0]))).value;
  }
  Variable gradient(const Linearisation& at) const override {
    const Variable q = at.input(1);
    return softmax(at.input(0)) * sum(q, {-1}) - q;
  }
};

// Inputs {x, a, b}, the weights of the two classes. With σ the sigmoid, −log σ(x) = softplus(−x).
struct BinaryCrossEntropy final : RowLoss {
  static inline const OpInfo& info =
      register_op({"binary_cross_entropy", "y = −⟨a, log σ(x)⟩ − ⟨b, log σ(−x)⟩", "dy = ⟨(a + b) ⊙ σ(x) − a, dx⟩"});
  BinaryCrossEntropy() : RowLoss(info) {}
  Needs needs(ActiveSet) const override { return {.inputs = 7}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Variable of_a = map_tensor(UnaryKind::softplus, negate(in[0]).value);
    const Variable of_b = map_tensor(UnaryKind::softplus, in[0]);
    return row_sum(in[1] * of_a + in[2] * of_b).value;
  }
  Variable gradient(const Linearisation& at) const override {
    const Variable a = at.input(1), b = at.input(2);
    return (a + b) * sigmoid(at.input(0)) - a;
  }
};

// Inputs {x, t} or {x, log t}.
struct KlDivergence final : RowLoss {
  static inline const OpInfo& info = register_op({"kl_divergence", "y = ⟨t, log t − x⟩", "dy = −⟨t, dx⟩"});
  explicit KlDivergence(bool log_targets) : RowLoss(info), log_targets(log_targets) {}
  bool log_targets;
  std::string attributes() const override { return fmt::format("log_targets={}", log_targets); }
  Needs needs(ActiveSet) const override { return {.inputs = 2}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Variable x = in[0], t = in[1];
    const Variable p = log_targets ? exp(t) : t;
    return row_sum(where_positive(p * ((log_targets ? t : log(t)) - x), p)).value;
  }
  Variable gradient(const Linearisation& at) const override {
    return negate(log_targets ? exp(at.input(1)) : at.input(1));
  }
};

struct SquaredError final : RowLoss {
  static inline const OpInfo& info = register_op({"squared_error", "y = ½ ‖x − t‖²", "dy = ⟨x − t, dx⟩"});
  SquaredError() : RowLoss(info) {}
  Needs needs(ActiveSet) const override { return {.inputs = 3}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return scale(row_sum(square(in[0] - in[1])), 0.5).value;
  }
  Variable gradient(const Linearisation& at) const override { return at.input(0) - at.input(1); }
};

// What is compared with x, in its type; the loss's name is for errors.
Tensor targets_like(const Variable& x, const Tensor& targets, const char* loss) {
  require(is_floating(x.dtype()), "{} of {}: it must be float32 or float64", loss, x.value.describe());
  require(targets.shape() == x.shape(), "{}: {} against targets {}", loss, x.shape().str(), targets.shape().str());
  return targets.to(x.dtype());
}

// t with every column times its weight, if there are weights.
Tensor weighted(const Tensor& t, const Tensor& weights, const char* loss) {
  if (!weights.defined()) return t;
  require(weights.shape() == Shape{t.extent(-1)}, "{}: weights {} for {} classes", loss, weights.shape().str(),
          t.extent(-1));
  for (const double w : weights.to(DType::float64).to_vector<double>())
    require(w >= 0, "{}: a weight is {}, it must not be negative", loss, w);
  return (Variable(t) * Variable(weights.to(t.dtype()))).value;
}

}  // namespace

Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype) {
  require(labels.dtype() == DType::int64, "one_hot: labels must be int64, got {}", labels.describe());
  const std::vector<int64_t> values = labels.to_vector<int64_t>();
  for (size_t i = 0; i < values.size(); i++)
    require(values[i] >= 0 && values[i] < classes, "label {} of sample {} is not a class: there are {}, from 0 to {}",
            values[i], i, classes, classes - 1);
  const Shape column = labels.shape() + Shape{1};
  return scatter_add(Tensor::full({}, 1, dtype, labels.device()).expand(column), -1, labels.reshape(column), classes)
      .value;
}

Variable cross_entropy(const Variable& logits, const Tensor& labels, double smoothing, const Tensor& class_weights) {
  require(smoothing >= 0 && smoothing < 1, "cross_entropy: the label smoothing must be in [0, 1), got {}", smoothing);
  require(logits.rank() >= 1 && logits.extent(-1) > 0 && labels.shape() == logits.shape().leading(logits.rank() - 1),
          "cross_entropy needs logits [N, C] and N labels, got {} and {}", logits.shape().str(), labels.shape().str());
  const int64_t classes = logits.extent(-1);
  Variable t = one_hot(labels, classes, logits.dtype());
  if (smoothing > 0) t = shift(scale(t, 1 - smoothing), smoothing / static_cast<double>(classes));
  return cross_entropy_soft(logits, t.value, class_weights);
}

Variable cross_entropy_soft(const Variable& logits, const Tensor& targets, const Tensor& class_weights) {
  const Tensor t = targets_like(logits, targets, "cross_entropy");
  return apply(CrossEntropy(), {logits, weighted(t, class_weights, "cross_entropy")});
}

Variable binary_cross_entropy(const Variable& logits, const Tensor& targets, const Tensor& positive_weights) {
  const Tensor t = targets_like(logits, targets, "binary_cross_entropy");
  return apply(BinaryCrossEntropy(),
               {logits, weighted(t, positive_weights, "binary_cross_entropy"), shift(negate(t), 1).value});
}

Variable kl_divergence(const Variable& log_probabilities, const Tensor& targets, bool log_targets) {
  return apply(KlDivergence(log_targets),
               {log_probabilities, targets_like(log_probabilities, targets, "kl_divergence")});
}

Variable squared_error(const Variable& x, const Tensor& targets) {
  return apply(SquaredError(), {x, targets_like(x, targets, "squared_error")});
}

}  // namespace fastntk
