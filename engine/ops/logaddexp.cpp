#include "engine/ops/logaddexp.h"

#include <algorithm>
#include <limits>

#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"
#include "engine/ops/select.h"

namespace fastntk {
namespace {

// y = log(eᵃ + eᵇ);   dy = eᵃ⁻ʸ da + eᵇ⁻ʸ db, two weights that sum to 1
struct LogAddExp final : Op {
  static inline const OpInfo& info =
      register_op({"logaddexp", "y = log(exp(a) + exp(b))", "dy = exp(a − y) ⊙ da + exp(b − y) ⊙ db"});
  LogAddExp() : Op(info) {}

  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() == in[1].rank(), "logaddexp: inputs of one rank, got {} and {}", in[0].str(), in[1].str());
    return broadcast(in[0], in[1], "logaddexp");
  }
  Needs needs(ActiveSet active) const override { return {.inputs = active, .output = true}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const double finite =
        in[0].dtype() == DType::float64 ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
    const Variable a(in[0]), b(in[1]), largest = clamp(maximum(a, b), -finite, finite);  // ∞ − ∞ is nothing
    return (largest + log(exp(a - largest) + exp(b - largest))).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Variable dy;
    for (int i = 0; i < 2; i++)
      if (t[static_cast<size_t>(i)].defined())
        dy = add_defined(dy, exp(at.input(i) - at.output()) * t[static_cast<size_t>(i)]);
    return dy;
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    std::vector<Variable> out(2);
    for (int i = 0; i < 2; i++)
      if (at.active(i))
        out[static_cast<size_t>(i)] =
            sum_to(exp(at.input(i) - at.output()) * c, at.input_shape(i), at.output_shape().rank());
    return out;
  }
};

// Stacked tangents have their axes in front, so the op takes inputs of one rank only: missing axes are put in here.
Variable with_rank(const Variable& x, int rank) {
  return x.rank() < rank ? reshape(x, Shape::filled(rank - x.rank(), 1) + x.shape()) : x;
}

}  // namespace

Variable logaddexp(const Variable& a, const Variable& b) {
  const int rank = std::max(a.rank(), b.rank());
  return apply(LogAddExp(), {with_rank(a, rank), with_rank(b, rank)});
}

}  // namespace fastntk
