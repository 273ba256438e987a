// What a program outside the repository does: it brings an op and a data set of its own, and solves with the library.
#include <fmt/core.h>

#include <cmath>

#include "datasets/registry.h"
#include "engine/cholesky.h"
#include "engine/gram.h"
#include "engine/ops/elementwise.h"
#include "engine/tape.h"

namespace {

using namespace fastntk;

const OpInfo& cube_info = register_op({"cube", "x³", "3 x² dx"});

// y = x³.   dy = 3 x² dx
struct Cube final : Op {
  Cube() : Op(cube_info) {}
  Shape shape(std::span<const Shape> inputs) const override { return inputs[0]; }
  Needs needs(ActiveSet) const override { return {.inputs = 1}; }
  Tensor forward(std::span<const Tensor> inputs, ActiveSet, std::vector<Tensor>&) const override {
    const Variable x(inputs[0]);
    return multiply(x, square(x)).value;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> tangents) const override {
    return multiply(scale(square(at.input(0)), 3), tangents[0]);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& cotangent) const override {
    return {multiply(scale(square(at.input(0)), 3), cotangent)};
  }
};

Dataset two_samples(const DatasetRequest&) {
  return {"two", Tensor::zeros({2, 4, 4, 1}), Tensor::from<int64_t>({2}, std::vector<int64_t>{0, 1}), 2};
}

}  // namespace

int main() {
  // An op: ⟨1, J v⟩ = ⟨Jᵀ 1, v⟩ = Σ 3 x² v.
  Tape tape;
  const Tensor ones = Tensor::full({2}, 1, DType::float64);
  const Variable x = tape.leaf(Tensor::from<double>({2}, std::vector<double>{2, -1}));
  const Variable y = apply(Cube(), {x});
  const Variable gradient = tape.vjp(y, ones, std::vector{x})[0];
  const std::vector<std::pair<Variable, Variable>> tangents{{x, ones}};
  const Variable tangent = tape.jvp(tangents, y);
  const bool op_works = gradient.value.to_vector<double>() == std::vector<double>{12, 3} &&
                        tangent.value.to_vector<double>() == std::vector<double>{12, 3};

  // A data set.
  register_dataset({"two", "two black images", two_samples});
  const bool data_works = load_dataset("two").size() == 2;

  // Ridge regression through the origin: (Σ x² + ρ) w = Σ x y.
  GramAccumulator accumulator(1);
  accumulator.add(Tensor::from<double>({2, 1}, std::vector<double>{1, 2}), ones);
  Gram gram = std::move(accumulator).finish();
  const Tensor w = Cholesky(std::move(gram.matrix), 1).solve(gram.right_hand_side);
  const bool solve_works = std::fabs(w.to_vector<double>()[0] - 0.5) < 1e-15;

  fmt::print("op {}, data set {}, solve {}\n", op_works, data_works, solve_works);
  return op_works && data_works && solve_works ? 0 : 1;
}
