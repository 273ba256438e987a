// Are the derivatives of a function, or of an op of yours, right? docs/functional.md shows it at work.
#pragma once
#include "engine/functional.h"

namespace fastntk {

struct GradcheckOptions {
  double step = 1e-4;       ///< of the central differences; kinks must be farther away than twice this
  double tolerance = 1e-7;  ///< of a derivative, relative to the largest one plus the largest value
  int64_t elements = 128;   ///< at most so many elements of each input, and of the value, chosen at random
  bool second_order = true;
  uint64_t seed = 1;  ///< of directions and choices
};

struct GradcheckReport {
  int64_t checks = 0;                 ///< numbers compared
  std::vector<std::string> failures;  ///< one sentence per kind of check and set of active inputs: its worst element
  /// The element that came nearest to its tolerance, or farthest beyond: error / allowed error, and where.
  double worst = 0;
  std::string worst_element;
  std::string note;  ///< what was not checked and why; empty as a rule

  bool ok() const { return failures.empty() && checks > 0; }
  /// All of it in a few lines.
  std::string str() const;
};

/// Checks the derivatives of f in its floating-point inputs (converted to float64; integers are constants), with all of
/// them active and with each alone:
///   jvp, vjp      element by element against central differences with an error of O(step⁴)
///   dot           ⟨u, J v⟩ = ⟨Jᵀ u, v⟩
///   stack         K tangents or cotangents at once = one by one
///   second order  all of this once more for x ↦ Jᵀ(x) u, unless an op is first_order_only()
/// What f throws is a failure as well.
GradcheckReport gradcheck(const Function& f, const Tensors& inputs, const GradcheckOptions& options = {});
GradcheckReport gradcheck(const Function& f, const Tensor& input, const GradcheckOptions& options = {});

/// The same for an op, e.g. gradcheck(TimesExp(), {a, b}).
template <std::derived_from<Op> O>
GradcheckReport gradcheck(O op, const Tensors& inputs, const GradcheckOptions& options = {}) {
  const auto shared = std::shared_ptr<const Op>(std::make_shared<O>(std::move(op)));
  return gradcheck(Function([shared](const std::vector<Variable>& x) { return apply(shared, x); }), inputs, options);
}

}  // namespace fastntk
