// Kernel families: what a device must be able to do. Ops are written against these; adding an op almost never adds one.
#pragma once
#include <cstdint>

#include "engine/convolution_shape.h"
#include "engine/kernels/random.h"
#include "engine/kernels/scalar.h"
#include "engine/tensor.h"

namespace fastntk {

enum class ReduceKind : uint8_t { sum, max };
enum class SoftmaxKind : uint8_t { softmax, log_softmax, logsumexp };
/// Linear maps at a point whose probabilities are p: t ↦ p ⊙ (t − ⟨p, t⟩), t ↦ t − ⟨p, t⟩, t ↦ t − p Σ t.
enum class SoftmaxMap : uint8_t { softmax, log_softmax, log_softmax_transposed };
enum class PoolKind : uint8_t { max, average };
/// Where a NaN goes: last when ascending, first otherwise.
enum class SortOrder : uint8_t { ascending, ascending_nan_first, descending };

/// Geometry of a pooling window; divisor of average pooling is the whole window (padding counts as zeros).
struct PoolShape {
  int64_t height = 0, width = 0, channels = 0;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_height = 1, stride_width = 1;
  int64_t padding_height = 0, padding_width = 0;
  int64_t out_height() const { return (height + 2 * padding_height - kernel_height) / stride_height + 1; }
  int64_t out_width() const { return (width + 2 * padding_width - kernel_width) / stride_width + 1; }
};

class Backend {
 public:
  virtual ~Backend() = default;

  // ---- map: element by element; inputs may have any strides, `out` is contiguous unless said otherwise ----
  /// out ← source, converting the type; `out` may have any strides. Shapes are equal.
  virtual void copy(const Tensor& source, Tensor& out) const = 0;
  virtual void fill(Tensor& out, double value) const = 0;
  virtual void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) const = 0;
  /// Inputs have been expanded to the shape of `out`.
  virtual void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) const = 0;
  /// Row-major index of the first element that is NaN or infinite, -1 if there is none.
  virtual int64_t first_non_finite(const Tensor& x) const = 0;

  // ---- random ----
  struct RandomFill;
  virtual void random(const RandomFill& arguments) const = 0;

  // ---- reduce ----
  /// `out` has the rank of x, and extent 1 on the axes that are reduced. Sums run in a fixed order.
  virtual void reduce(ReduceKind kind, const Tensor& x, Tensor& out) const = 0;

  // ---- softmax: by row of the last axis, which is not empty; any strides, `out` contiguous ----
  /// `out` like x; of logsumexp, with rows of one element.
  virtual void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out) const = 0;
  /// t and `out` [K…, rows…, n] are a stack at the point p [rows…, n].
  virtual void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out) const = 0;

  // ---- gemm ----
  /// out [batch…, m, n], contiguous, ← a [batch…, m, k] b [batch…, k, n]; batch axes of extent 1, missing ones, and any
  /// strides (transposed views, repeated matrices) are fine. With `keep_b`, b is a weight that will be multiplied
  /// again, and what is prepared from it may be kept with its storage.
  virtual void gemm(const Tensor& a, const Tensor& b, Tensor& out, bool keep_b) const = 0;

  // ---- attention: y = P v, P = softmax(α q kᵀ) by row (ops/attention.h) ----
  struct Attention;
  virtual void attention(const Attention& arguments) const = 0;
  struct AttentionTransposed;
  virtual void attention_transposed(const AttentionTransposed& arguments) const = 0;

  // ---- pool: x [N…, H, W, C] with any strides, out [N…, OH, OW, C] contiguous ----
  /// `where` (max pooling, may be null), shaped like `out`, receives the position y · W + x of each maximum as int64;
  /// of equal values the first in row-major order.
  virtual void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where) const = 0;
  /// The transpose of average pooling: dx (contiguous) from dy.
  virtual void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx) const = 0;

  // ---- gather: along one axis (negative); any strides; an index outside the axis is an error ----
  /// out[l, i, r] = x[l, index[l, i, r], r]; `index` (int64) has been expanded to the shape of `out`.
  virtual void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) const = 0;
  /// out[l, index[l, i, r], r] += x[l, i, r], in ascending order of i; `index` has been expanded to the shape of x.
  virtual void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out) const = 0;

  // ---- along one axis (negative or not); any strides ----
  /// out_i = Σ_{j ≤ i} x_j, or Σ_{j ≥ i} x_j in reverse; summed in float64, in order.
  virtual void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out) const = 0;
  /// The first index.extent(axis) places of x's elements in an order; equal elements go by their place.
  virtual void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index) const = 0;

  // ---- convolution: x [..., N, H, W, C], w [..., 1 or N, O, I, kh, kw], y [..., N, OH, OW, O] ----
  // ---- A stack of leading axes on either operand or on both. ----
  // ---- Results are contiguous. ----
  virtual void convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& x,
                           const Tensor& w, Tensor& y) const = 0;
  /// The transposed map in x: dx from dy.
  virtual void convolution_input_gradient(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm,
                                          const Tensor& dy, const Tensor& w, Tensor& dx) const = 0;
  /// The transposed map in w: dw [..., 1 or N, O, I, kh, kw]; with 1 the sum over samples, with N a gradient for each.
  virtual void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x, const Tensor& dy,
                                           Tensor& dw) const = 0;

  // ---- channel affine: the body of batch normalisation (ops/normalisation.h) ----
  struct ChannelAffine;
  virtual void channel_affine(const ChannelAffine& arguments) const = 0;
  struct ChannelAffineTransposed;
  virtual void channel_affine_transposed(const ChannelAffineTransposed& arguments) const = 0;
  struct ChannelAffineTransposedBatch;
  virtual void channel_affine_transposed_batch(const ChannelAffineTransposedBatch& arguments) const = 0;
  /// Mean and biased variance by channel of x [rows, C], accumulated in float64.
  virtual void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance) const = 0;

  // ---- row norm: the body of layer norm and RMS norm (ops/layer_norm.h) ----
  struct RowNorm;
  virtual void row_norm(const RowNorm& arguments) const = 0;
  struct RowNormCore;
  virtual void row_norm_core(const RowNormCore& arguments) const = 0;
  struct RowNormSums;
  virtual void row_norm_sums(const RowNormSums& arguments) const = 0;

  // ---- optimisers: a step in place (training/optimiser.h); contiguous tensors of one shape and type ----
  struct SgdStep;
  virtual void step(const SgdStep& arguments) const = 0;
  struct AdamStep;
  virtual void step(const AdamStep& arguments) const = 0;

  // ---- dense solves ----
  /// The lower triangle of a, contiguous float64 [n, n], becomes L with a = L Lᵀ; of the upper one nothing is read, and
  /// what is left there is not said. Returns 0, or k when the leading k × k block is the first that is not positive
  /// definite.
  virtual int64_t cholesky(Tensor& a) const = 0;
  /// b [n, R] ← (L Lᵀ)⁻¹ b, contiguous float64, for such an L.
  virtual void cholesky_solve(const Tensor& factor, Tensor& b) const = 0;
};

/// The backend of a device; Error when it cannot be used.
const Backend& backend(Device device);
const Backend& cpu_backend();
/// Has the CPU's work done by another backend, which hands it on; null: by its own again.
void set_cpu_backend(const Backend* other);
inline const Backend& backend_of(const Tensor& t) { return backend(t.device()); }

/// out_i = random_element<kind>(numbers, first + i, p) for element i in row-major order; `out` is contiguous.
struct Backend::RandomFill {
  RandomKind kind;
  RandomNumbers numbers;
  uint64_t first;
  double p;
  Tensor& out;
};

/// q [N…, T, d], k [N…, S, d], v [N…, S, e], y [N…, T, e], S > 0. The elements of a row lie side by side, all other
/// strides are free.
struct Backend::Attention {
  const Tensor &q, &k, &v;
  double scale;
  Tensor& y;
};

/// The transposed map at that point for a stack of cotangents [K, N…, T, e]: dq, dk, dv, shaped like q, k and v after
/// the axis K. What is null is not computed.
struct Backend::AttentionTransposed {
  const Tensor &q, &k, &v;
  double scale;
  const Tensor& cotangent;
  Tensor *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

/// y = (x − mean) ⊙ a + b (+ residual), then max(0, ·) if `relu`. Contiguous tensors: x, y, residual [N, positions, C];
/// mean [C]; a, b [1 or N, C].
struct Backend::ChannelAffine {
  const Tensor &x, &mean, &a, &b;
  const Tensor* residual = nullptr;
  bool relu = false;
  Tensor& y;
};

/// For a stack of cotangents [K, N, positions, C] at that point: g = cotangent ⊙ [y > 0] (y null: g = cotangent);
/// masked = g, dx = g ⊙ a, sum_g = Σ g and sum_gx = Σ g ⊙ (x − mean) over positions, [K, 1 or N, C], with 1 also over
/// samples. What is null is not read or not computed.
struct Backend::ChannelAffineTransposed {
  const Tensor& cotangent;
  const Tensor *y = nullptr, *x = nullptr, *mean = nullptr, *a = nullptr;
  Tensor *sum_g = nullptr, *sum_gx = nullptr, *masked = nullptr, *dx = nullptr;
};

/// dx = a ⊙ g + slope ⊙ (x − mean) + constant; a [1, C]; slope, constant [K, C]: the rest of the transpose of train
/// mode, where mean and variance are functions of x.
struct Backend::ChannelAffineTransposedBatch {
  const Tensor& cotangent;
  const Tensor* y;
  const Tensor &x, &mean, &a, &slope, &constant;
  Tensor& dx;
};

/// y = x̂ ⊙ a + b with x̂ = (x − mean) rstd by row of the last axis; the mean is zero unless `centre`, rstd = 1 / √(mean
/// (x − mean)² + epsilon). Contiguous tensors: x, y [N, rows, D]; a, b [1 or N, D] (null: left out; b needs a); mean,
/// rstd [N, rows, 1] are written where not null.
struct Backend::RowNorm {
  const Tensor& x;
  const Tensor *a = nullptr, *b = nullptr;
  double epsilon = 0;
  bool centre = true;
  Tensor &y, *mean = nullptr, *rstd = nullptr;
};

/// The derivative of x̂ at that point, which is self-adjoint, on a stack t [K, N, rows, D]: out = after ⊙ rstd (u −
/// [centre] mean u − x̂ mean(u ⊙ x̂)), u = before ⊙ t. mean is null unless centre; before, after [1 or N, D] may be null.
struct Backend::RowNormCore {
  const Tensor &t, &x, *mean, &rstd;
  const Tensor *before = nullptr, *after = nullptr;
  Tensor& out;
};

/// sum = Σ t and sum_xhat = Σ t ⊙ x̂ over rows, [K, 1 or N, D], with 1 also over samples. What is null is not computed;
/// x, mean, rstd are read for sum_xhat only.
struct Backend::RowNormSums {
  const Tensor &t, *x = nullptr, *mean = nullptr, *rstd = nullptr;
  Tensor *sum = nullptr, *sum_xhat = nullptr;
};

/// g = gradient + decay · θ; velocity ← g in the `first` step, else momentum · velocity + g; θ ← θ − rate · velocity,
/// or with Nesterov's method θ − rate (g + momentum · velocity).
struct Backend::SgdStep {
  const Tensor& gradient;
  Tensor &theta, &velocity;
  double rate, momentum = 0, decay = 0;
  bool nesterov = false, first = false;
};

/// mean and square are running averages of g and g²; θ moves by −rate · m̂ / (√ŝ + epsilon), m̂ and ŝ being the averages
/// without the bias that they have after `steps` steps, this one included. decay · θ is added to g, or if `decoupled`
/// rate · decay · θ is taken off θ.
struct Backend::AdamStep {
  const Tensor& gradient;
  Tensor &theta, &mean, &square;
  double rate, beta1, beta2, epsilon, decay = 0;
  bool decoupled = false;
  int64_t steps = 1;
};

}  // namespace fastntk
