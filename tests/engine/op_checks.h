// The op tests, made from the sample database: what must hold for every op at every point.
#pragma once
#include <string>
#include <vector>

#include "engine/draw.h"
#include "engine/samples.h"

namespace fastntk::test {

/// One way to run a sample.
struct Case {
  ActiveSet active = 1;
  Layout layout = Layout::contiguous;
  int64_t stack = 0;  ///< K stacked tangents and cotangents; 0: none
  DType dtype = DType::float64;
};

/// All cases of a sample: every nonempty active set × layout × K ∈ {none, 3} × {float32, float64}.
std::vector<Case> full_grid(const Sample& sample);
/// Some of them, such that any two choices (an active set and a layout, a layout and a K, …) meet in at least one.
std::vector<Case> pairwise_grid(const Sample& sample);
/// full_grid if FASTNTK_TEST_GRID is "full", else pairwise_grid.
std::vector<Case> grid(const Sample& sample);

/// What was checked and what did not hold. A failure starts with the kind of check, e.g. "jvp: …".
struct Report {
  int64_t checks = 0;
  std::vector<std::string> failures;
};

/// Checks one sample in one case:
///   forward        the value against the float64 reference
///   jvp            against central differences of that reference
///   dot            ⟨u, J v⟩ = ⟨Jᵀ u, v⟩
///   stack          K tangents or cotangents at once = one by one
///   tangents       an absent tangent is zero; the map is the sum over its inputs
///   saved          exactly the declared tensors are kept, and each is needed
///   second order   (float64) the recorded vjp, differentiated both ways, against central differences of the vjp
void check_case(const Sample& sample, const Case& c, Report& report);

/// Checks what does not depend on the case:
///   per-sample     per-sample leaves = a loop over samples, or they are refused
///   refusal        wrong shapes, wrong dtypes and integers are refused
void check_sample(const Sample& sample, Report& report);

}  // namespace fastntk::test
