// The kernel families of this device as the engine calls them.
#include "engine/cuda/device_entry.h"
#include "engine/cuda/families.h"
#include "engine/cuda/operand.cuh"
#include "engine/precision.h"

namespace fastntk::FASTNTK_GPU {
namespace {

class GpuBackend final : public Backend {
 public:
  void copy(const Tensor& source, Tensor& out) const override { FASTNTK_GPU::copy(source, out); }
  void fill(Tensor& out, double value) const override { FASTNTK_GPU::fill(out, value); }
  void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) const override {
    FASTNTK_GPU::map(kind, parameter, x, out);
  }
  void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) const override {
    FASTNTK_GPU::map(kind, a, b, out);
  }
  int64_t first_non_finite(const Tensor& x) const override { return FASTNTK_GPU::first_non_finite(x); }
  void reduce(ReduceKind kind, const Tensor& x, Tensor& out) const override { FASTNTK_GPU::reduce(kind, x, out); }
  void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out) const override { FASTNTK_GPU::softmax(kind, x, out); }
  void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out) const override {
    FASTNTK_GPU::softmax_map(kind, p, t, out);
  }
  void gemm(const Tensor& a, const Tensor& b, Tensor& out, bool keep_b) const override {
    FASTNTK_GPU::gemm(a, b, out, keep_b);
  }
  void attention(const Attention& arguments) const override { FASTNTK_GPU::attention(arguments); }
  void attention_transposed(const AttentionTransposed& arguments) const override {
    FASTNTK_GPU::attention_transposed(arguments);
  }
  void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where) const override {
    FASTNTK_GPU::pool(kind, shape, x, out, where);
  }
  void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx) const override {
    FASTNTK_GPU::average_pool_transposed(shape, dy, dx);
  }
  void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) const override {
    FASTNTK_GPU::gather(x, axis, index, out);
  }
  void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out) const override {
    FASTNTK_GPU::scatter_add(x, axis, index, out);
  }
  void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out) const override {
    FASTNTK_GPU::cumsum(x, axis, reverse, out);
  }
  void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index) const override {
    FASTNTK_GPU::argsort(x, axis, order, index);
  }
  // Every product is one of an input and a weight: there is no Winograd here.
  void convolution(const ConvolutionShape& shape, ConvolutionAlgorithm, const Tensor& x, const Tensor& w,
                   Tensor& y) const override {
    FASTNTK_GPU::convolution(shape, x, w, y);
  }
  void convolution_input_gradient(const ConvolutionShape& shape, ConvolutionAlgorithm, const Tensor& dy,
                                  const Tensor& w, Tensor& dx) const override {
    FASTNTK_GPU::convolution_input_gradient(shape, dy, w, dx);
  }
  void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x, const Tensor& dy,
                                   Tensor& dw) const override {
    FASTNTK_GPU::convolution_weight_gradient(shape, x, dy, dw);
  }
  void channel_affine(const ChannelAffine& arguments) const override { FASTNTK_GPU::channel_affine(arguments); }
  void channel_affine_transposed(const ChannelAffineTransposed& arguments) const override {
    FASTNTK_GPU::channel_affine_transposed(arguments);
  }
  void channel_affine_transposed_batch(const ChannelAffineTransposedBatch& arguments) const override {
    FASTNTK_GPU::channel_affine_transposed_batch(arguments);
  }
  void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance) const override {
    FASTNTK_GPU::channel_moments(x, mean, variance);
  }
  void row_norm(const RowNorm& arguments) const override { FASTNTK_GPU::row_norm(arguments); }
  void row_norm_core(const RowNormCore& arguments) const override { FASTNTK_GPU::row_norm_core(arguments); }
  void row_norm_sums(const RowNormSums& arguments) const override { FASTNTK_GPU::row_norm_sums(arguments); }
  void random(const RandomFill& arguments) const override { FASTNTK_GPU::random(arguments); }
  void step(const SgdStep& arguments) const override { FASTNTK_GPU::step(arguments); }
  void step(const AdamStep& arguments) const override { FASTNTK_GPU::step(arguments); }
  int64_t cholesky(Tensor& a) const override {
    require(a.rank() == 2 && a.extent(0) == a.extent(1) && a.is_contiguous(), "a Cholesky factor of {}", a.describe());
    return a.extent(0) == 0 ? 0 : FASTNTK_GPU::cholesky(elements_to_write<double>(a), a.extent(0));
  }
  void cholesky_solve(const Tensor& factor, Tensor& b) const override {
    require(factor.rank() == 2 && factor.extent(0) == factor.extent(1) && factor.is_contiguous() && b.rank() == 2 &&
                b.extent(0) == factor.extent(0),
            "a solution by a factor {} for {}", factor.describe(), b.describe());
    if (b.elements() == 0) return;
    // Columns one after the other, as LAPACK has them.
    Tensor columns = b.transpose(0, 1).clone();
    FASTNTK_GPU::cholesky_solve(elements<double>(factor), b.extent(0), elements_to_write<double>(columns), b.extent(1));
    FASTNTK_GPU::copy(columns.transpose(0, 1), b);
  }
};

}  // namespace

const Backend& backend() {
  static const GpuBackend instance;
  return instance;
}

}  // namespace fastntk::FASTNTK_GPU
