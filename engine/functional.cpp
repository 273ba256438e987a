#include "engine/functional.h"

#include <algorithm>

#include "engine/gram.h"

namespace fastntk {
namespace {

constexpr int64_t stack_rows_at_once = 64;  // of a Jacobian
constexpr int64_t sample_tile = 8;

using LeafTangents = std::vector<std::pair<Variable, Variable>>;

std::vector<Variable> leaves_of(Tape& tape, const Tensors& x) {
  require(!x.empty(), "a function needs at least one input");
  std::vector<Variable> leaves;
  for (size_t i = 0; i < x.size(); i++) leaves.push_back(tape.leaf(x[i], "x" + std::to_string(i)));
  return leaves;
}

Tensor one(const Variable& y, const char* what) {
  require(y.value.elements() == 1, "{} needs a value of one element, got {}", what, y.shape().str());
  return Tensor::full(y.shape(), 1, y.dtype(), y.value.device());
}

// The pairs that Tape::jvp takes; what they have in front of the inputs' shapes goes to `lead`.
LeafTangents pairs(const std::vector<Variable>& leaves, const Tensors& v, Shape& lead) {
  require(v.size() == leaves.size(), "{} tangents were given for {} inputs", v.size(), leaves.size());
  LeafTangents out;
  bool first = true;
  for (size_t i = 0; i < v.size(); i++) {
    if (!v[i].defined()) continue;
    const int extra = v[i].rank() - leaves[i].rank();
    require(extra >= 0 && v[i].shape().trailing(leaves[i].rank()) == leaves[i].shape() &&
                (first || v[i].shape().leading(extra) == lead),
            "tangent {} must have the shape {} of its input, after the same extra leading axes as the others; got {}",
            i, leaves[i].shape().str(), v[i].shape().str());
    require(v[i].dtype() == leaves[i].dtype(), "tangent {} is {}, its input is {}", i, name_of(v[i].dtype()),
            name_of(leaves[i].dtype()));
    lead = v[i].shape().leading(extra);
    first = false;
    out.emplace_back(leaves[i], v[i]);
  }
  require(!out.empty(), "all tangents are undefined");
  return out;
}

Tensor value_or_zero(const Variable& v, const Shape& shape, const Tensor& like) {
  return v.defined() ? v.value : Tensor::zeros(shape, like.dtype(), like.device());
}

Tensors values_or_zeros(const std::vector<Variable>& v, const Shape& lead, const std::vector<Variable>& leaves) {
  Tensors out;
  for (size_t i = 0; i < v.size(); i++) out.push_back(value_or_zero(v[i], lead + leaves[i].shape(), leaves[i].value));
  return out;
}

// [to − from, …]: row k has a 1 at element from + k.
Tensor basis(const Shape& shape, int64_t from, int64_t to, const Tensor& like) {
  const int64_t n = shape.elements();
  Tensor out = Tensor::zeros({to - from, n}, like.dtype(), like.device());
  for (int64_t k = from; k < to; k++) out.select(0, k - from).slice(0, k, k + 1).fill(1);
  return out.reshape(Shape{to - from} + shape);
}

template <class Each>
void in_stacks(int64_t n, Each&& each) {
  for (int64_t from = 0; from < n; from += stack_rows_at_once) each(from, std::min(n, from + stack_rows_at_once));
}

}  // namespace

Jvp jvp(const Function& f, const Tensors& x, const Tensors& v) {
  Tape tape;
  const auto leaves = leaves_of(tape, x);
  Shape lead;
  const LeafTangents tangents = pairs(leaves, v, lead);
  const Variable y = f(leaves);
  const Variable dy = y.active() ? tape.jvp(tangents, y) : Variable{};
  return {y.value, value_or_zero(dy, lead + y.shape(), y.value)};
}

Tensors Pullback::operator()(const Tensor& u) const {
  require(u.dtype() == value_.dtype(), "the cotangent is {}, the value is {}", name_of(u.dtype()),
          name_of(value_.dtype()));
  require(u.rank() >= value_.rank() && u.shape().trailing(value_.rank()) == value_.shape(),
          "a cotangent must have the value's shape {}, perhaps after extra leading axes; got {}", value_.shape().str(),
          u.shape().str());
  const auto cotangents = output_.active() ? tape_->vjp(output_, u, leaves_) : std::vector<Variable>(leaves_.size());
  return values_or_zeros(cotangents, u.shape().leading(u.rank() - value_.rank()), leaves_);
}

Pullback vjp(const Function& f, const Tensors& x) {
  Pullback out;
  out.tape_ = std::make_unique<Tape>();
  out.leaves_ = leaves_of(*out.tape_, x);
  out.output_ = f(out.leaves_);
  out.value_ = out.output_.value;
  return out;
}

Tensors jacobian(const Function& f, const Tensors& x) {
  Tape tape;
  const auto leaves = leaves_of(tape, x);
  const Variable y = f(leaves);
  const int64_t outputs = y.value.elements();
  int64_t inputs = 0;
  Tensors out;
  for (const Variable& leaf : leaves) {
    inputs += leaf.value.elements();
    out.push_back(Tensor::zeros({outputs, leaf.value.elements()}, y.dtype(), y.value.device()));
  }
  if (y.active() && inputs < outputs) {
    for (size_t i = 0; i < leaves.size(); i++)
      in_stacks(leaves[i].value.elements(), [&](int64_t from, int64_t to) {
        const LeafTangents tangent = {{leaves[i], basis(leaves[i].shape(), from, to, y.value)}};
        const Variable columns = tape.jvp(tangent, y);
        if (columns.defined())
          out[i].slice(1, from, to).copy_from(columns.value.reshape({to - from, outputs}).transpose(0, 1));
      });
  } else if (y.active()) {
    in_stacks(outputs, [&](int64_t from, int64_t to) {
      const auto rows = tape.vjp(y, basis(y.shape(), from, to, y.value), leaves);
      for (size_t i = 0; i < rows.size(); i++)
        if (rows[i].defined())
          out[i].slice(0, from, to).copy_from(rows[i].value.reshape({to - from, leaves[i].value.elements()}));
    });
  }
  for (size_t i = 0; i < out.size(); i++) out[i] = out[i].reshape(y.shape() + leaves[i].shape());
  return out;
}

Tensors hvp(const Function& f, const Tensors& x, const Tensors& v) {
  Tape tape;
  const auto leaves = leaves_of(tape, x);
  Shape lead;
  const LeafTangents tangents = pairs(leaves, v, lead);
  const Variable y = f(leaves);
  const Tensor seed = one(y, "a Hessian-vector product");
  const auto gradient =
      y.active() ? tape.vjp(y, seed, leaves, /*differentiable=*/true) : std::vector<Variable>(leaves.size());
  // A gradient that does not depend on the leaves, or is zero, has no derivative.
  std::vector<Variable> outputs, products(leaves.size());
  std::vector<size_t> at;
  for (size_t i = 0; i < gradient.size(); i++)
    if (gradient[i].defined() && gradient[i].active()) outputs.push_back(gradient[i]), at.push_back(i);
  const auto found = tape.jvp(tangents, outputs);
  for (size_t k = 0; k < at.size(); k++) products[at[k]] = found[k];
  return values_or_zeros(products, lead, leaves);
}

Tensors ggn_vp(const Function& f, const Function& loss, const Tensors& x, const Tensors& v) {
  Tape tape;
  const auto leaves = leaves_of(tape, x);
  Shape lead;
  const LeafTangents tangents = pairs(leaves, v, lead);
  const Variable y = f(leaves);
  const Variable jv = y.active() ? tape.jvp(tangents, y) : Variable{};
  if (!jv.defined()) return values_or_zeros(std::vector<Variable>(leaves.size()), lead, leaves);
  return values_or_zeros(tape.vjp(y, hvp(loss, y.value, jv.value), leaves), lead, leaves);
}

Tensor jacobian_rows(const ParametricFunction& f, const Tensors& theta, const Tensor& x) {
  require(x.rank() >= 1 && x.extent(0) > 0, "Jacobian rows need samples x [N, …] with N > 0, got {}", x.describe());
  require(!theta.empty(), "Jacobian rows in no parameters");
  int64_t P = 0;
  for (const Tensor& t : theta) P += t.elements();
  const int64_t n = x.extent(0);
  Tensor out;
  for (int64_t first = 0; first < n; first += sample_tile) {
    const int64_t count = std::min(sample_tile, n - first);
    Tape tape;
    std::vector<Variable> leaves;
    for (const Tensor& t : theta) leaves.push_back(tape.per_sample_leaf(t.unsqueeze(0), count));
    const Variable y = f(leaves, x.slice(0, first, first + count));
    require(y.rank() >= 1 && y.extent(0) == count, "f(θ, x) of {} samples must have a value for each, got {}", count,
            y.shape().str());
    const Shape each = y.shape().slice(1, y.rank());
    const int64_t C = each.elements();
    if (!out.defined()) out = Tensor::zeros({n, C, P}, y.dtype(), y.value.device());
    if (!y.active()) continue;
    in_stacks(C, [&](int64_t from, int64_t to) {
      // Element c of every sample at once: [to − from, count, …].
      const Tensor seed = basis(each, from, to, y.value).reshape(Shape{to - from, 1} + each);
      const auto rows = tape.vjp(y, seed.expand(Shape{to - from} + y.shape()), leaves);
      int64_t at = 0;
      for (size_t i = 0; i < rows.size(); at += theta[i].elements(), i++)
        if (rows[i].defined())
          out.slice(0, first, first + count)
              .slice(1, from, to)
              .slice(2, at, at + theta[i].elements())
              .copy_from(rows[i].value.reshape({to - from, count, theta[i].elements()}).transpose(0, 1));
    });
  }
  return out;
}

Tensor ntk(const ParametricFunction& f, const Tensors& theta, const Tensor& x1, const Tensor& x2) {
  return dual_gram(jacobian_rows(f, theta, x1), jacobian_rows(f, theta, x2)).contiguous();
}

// ---- one input ----

Jvp jvp(const Function& f, const Tensor& x, const Tensor& v) { return jvp(f, Tensors{x}, Tensors{v}); }
Pullback vjp(const Function& f, const Tensor& x) { return vjp(f, Tensors{x}); }
Tensor jacobian(const Function& f, const Tensor& x) { return jacobian(f, Tensors{x})[0]; }
Tensor hvp(const Function& f, const Tensor& x, const Tensor& v) { return hvp(f, Tensors{x}, Tensors{v})[0]; }
Tensor ggn_vp(const Function& f, const Function& loss, const Tensor& x, const Tensor& v) {
  return ggn_vp(f, loss, Tensors{x}, Tensors{v})[0];
}

}  // namespace fastntk
