// The kernel families of a GPU; contracts in engine/backend.h. Declared once for each of the two builds of this folder.
#pragma once
#include "engine/backend.h"

namespace fastntk::FASTNTK_GPU {

void copy(const Tensor& source, Tensor& out);
void fill(Tensor& out, double value);
void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out);
void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out);
int64_t first_non_finite(const Tensor& x);

void random(const Backend::RandomFill& arguments);

void reduce(ReduceKind kind, const Tensor& x, Tensor& out);

void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out);
void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out);

/// As in the contract, but only the elements of a row of `out` must lie side by side. Of a layer with its weight: in
/// TF32 where that has been asked for.
void gemm(const Tensor& a, const Tensor& b, Tensor& out, bool of_layer = false);

void attention(const Backend::Attention& arguments);
void attention_transposed(const Backend::AttentionTransposed& arguments);

void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where);
void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx);

void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out);
void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out);
void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out);
void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index);

void convolution(const ConvolutionShape& shape, const Tensor& x, const Tensor& w, Tensor& y);
void convolution_input_gradient(const ConvolutionShape& shape, const Tensor& dy, const Tensor& w, Tensor& dx);
void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x, const Tensor& dy, Tensor& dw);
/// With one set of weights w [O, I, kh, kw] and one group: y from x, or dx from dy if `transposed`. Not for no elements.
void implicit_convolution(const ConvolutionShape& shape, bool transposed, const Tensor& x, const Tensor& w, Tensor& y);

void channel_affine(const Backend::ChannelAffine& arguments);
void channel_affine_transposed(const Backend::ChannelAffineTransposed& arguments);
void channel_affine_transposed_batch(const Backend::ChannelAffineTransposedBatch& arguments);
void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance);

void row_norm(const Backend::RowNorm& arguments);
void row_norm_core(const Backend::RowNormCore& arguments);
void row_norm_sums(const Backend::RowNormSums& arguments);

void step(const Backend::SgdStep& arguments);
void step(const Backend::AdamStep& arguments);

/// As in the contract, of n columns that lie one after the other, in the upper triangle. cuSOLVER, or OpenBLAS in the
/// emulator.
int64_t cholesky(double* a, int64_t n);
/// B [n, columns], column-major, ← A⁻¹ B by the factor that it left.
void cholesky_solve(const double* factor, int64_t n, double* b, int64_t columns);

/// C_i [m, n] ← op(A_i) op(B_i), column-major, for i below `count`; the distances between matrices are in elements and
/// may be 0 for A and B. cuBLAS, or OpenBLAS in the emulator.
template <class T>
struct BatchedGemm {
  char transpose_a, transpose_b;
  int m, n, k;
  const T* a;
  int lda;
  int64_t step_a;
  const T* b;
  int ldb;
  int64_t step_b;
  T* c;
  int ldc;
  int64_t step_c;
  int count;
  bool tf32 = false;  ///< for float: both operands rounded to TF32, sums in float32
};
void gemm(const BatchedGemm<float>& arguments);
void gemm(const BatchedGemm<double>& arguments);

}  // namespace fastntk::FASTNTK_GPU
