// The rows of J as a kernel needs them. A linear layer that is used once on [N, in] has ∂f_c/∂W = g_c xᵀ with g_c the
// gradient in its bias and x its input, so its part of Θ is ⟨g_c, g'_d⟩⟨x, x'⟩: the layer is kept as in + out numbers
// instead of in·out. The classifier is such a layer, with g_c the c-th unit vector.
#pragma once
#include "unlearn/jacobian.h"

namespace fastntk {

/// A linear layer whose weight is kept in two factors.
struct FactoredLayer {
  std::string weight;
  const Parameter* parameter = nullptr;
  int64_t inputs = 0, outputs = 0;
  int64_t gradient = 0;  ///< of its bias: the first of `outputs` columns in the kept rows
  int64_t input = 0;     ///< the first of `inputs` columns among what is kept per sample
};

/// What is kept of J: columns [0, dense) of a row count as they are, then gradients that factored layers alone use.
struct RowLayout {
  Subset swept;        ///< the subset whose Jacobian is computed
  int64_t dense = 0;   ///< D
  int64_t stored = 0;  ///< S ≥ D, swept.size()
  int64_t extra = 0;   ///< X, numbers per sample
  int64_t classes = 0;
  std::vector<FactoredLayer> layers;
};
/// Decides by one sample which linear layers can be kept in factors, where that is fewer numbers; none with
/// `factored` false.
RowLayout plan_rows(const Module& model, const Subset& subset, const Tensor& inputs, bool factored);

/// Rows of some samples in this layout.
struct NtkRows {
  Tensor rows;   ///< [count, C, S]
  Tensor extra;  ///< [count, X]; undefined if X is 0
};

/// Computes rows [first, last) of inputs [n, …] into `out` (its first last − first samples).
void compute_rows(const Module& model, const RowLayout& layout, const Tensor& inputs, int64_t first, int64_t last,
                  const JacobianOptions& options, NtkRows& out);

/// Bytes of the model's device that one thread takes while it computes rows, beyond `out`, measured on the first tile
/// of samples.
size_t measured_sweep_bytes(const Module& model, const RowLayout& layout, const Tensor& inputs,
                            const JacobianOptions& options);
/// How the sweeps will run, for samples in tiles of at most `inputs`.
JacobianPlan plan_sweeps(const Module& model, const RowLayout& layout, const Tensor& inputs,
                         const JacobianOptions& options);

/// Operations of one forward pass of a sample: two for every multiplication of a convolution, linear layer or matrix
/// product; the rest is not counted.
double forward_flops(const Module& model, const Tensor& sample);

}  // namespace fastntk
