// The dot test on every record of a tape, whatever made it. Header only, so that the tests of other rooms can use it.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "engine/random.h"
#include "engine/tape.h"

namespace fastntk::test {

/// For every record of the tape, with K = 2 stacked random u and v of its active inputs' shapes: ⟨u, Jv⟩ = ⟨Jᵀu, v⟩
/// within `tolerance` · (Σ|u Jv| + Σ|Jᵀu v| + Σ|u| / 100). Returns what does not hold, one line per record.
inline std::vector<std::string> failed_dot_tests(const Tape& tape, double tolerance) {
  std::vector<std::string> failures;
  const Random random(23);
  uint64_t stream = 0;
  const auto direction = [&](const Shape& shape, DType dtype) {
    return Variable(random.stream(stream++).normal_tensor(Shape{2} + shape, dtype));
  };
  struct Sum {
    double value = 0, size = 0;
    void add(const Variable& a, const Variable& b) {
      if (!a.defined() || !b.defined()) return;
      const auto x = a.value.to(DType::float64).to_vector<double>(), y = b.value.to(DType::float64).to_vector<double>();
      for (size_t i = 0; i < x.size(); i++) value += x[i] * y[i], size += std::abs(x[i] * y[i]);
    }
  };
  for (size_t k = 0; k < tape.records().size(); k++) {
    const Record& r = tape.records()[k];
    const Linearisation at(r, false);
    std::vector<Variable> v(r.inputs.size());
    for (size_t i = 0; i < v.size(); i++)
      if (at.active(static_cast<int>(i))) v[i] = direction(r.input_shapes[i], r.dtype);
    const Variable u = direction(r.output_shape, r.dtype);
    const Variable jv = r.op->jvp(at, v);
    const std::vector<Variable> jtu = r.op->vjp(at, u);
    Sum left, right, size;
    left.add(u, jv);
    for (size_t i = 0; i < v.size(); i++) right.add(jtu.at(i), v[i]);
    size.add(u, Tensor::full(u.shape(), 1, u.dtype()));
    const double allowed = tolerance * (left.size + right.size + 0.01 * size.size);
    if (!(std::abs(left.value - right.value) <= allowed))
      failures.push_back(fmt::format("record {}, {}({}) → {}: ⟨u, Jv⟩ = {}, ⟨Jᵀu, v⟩ = {}, may differ by {}", k,
                                     r.op->name(), r.op->attributes(), r.output_shape.str(), left.value, right.value,
                                     allowed));
  }
  return failures;
}

}  // namespace fastntk::test
