// The CPU's kernel families.
#include "engine/backend.h"

#include "engine/blas.h"
#include "engine/cpu/attention.h"
#include "engine/cpu/channel_affine.h"
#include "engine/cpu/contraction.h"
#include "engine/cpu/convolution_family.h"
#include "engine/cpu/gather.h"
#include "engine/cpu/map.h"
#include "engine/cpu/optimiser.h"
#include "engine/cpu/pool.h"
#include "engine/cpu/random.h"
#include "engine/cpu/reduce.h"
#include "engine/cpu/row_norm.h"
#include "engine/cpu/scan.h"
#include "engine/cpu/softmax.h"
#include "engine/precision.h"

namespace fastntk {
namespace {

void require_precision() {
  require(linear_precision() != Precision::tf32, "products in tf32 are for GPUs, and these operands are on the CPU");
}

class CpuBackend final : public Backend {
 public:
  void copy(const Tensor& source, Tensor& out) const override { cpu::copy(source, out); }
  void fill(Tensor& out, double value) const override { cpu::fill(out, value); }
  void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) const override {
    cpu::map(kind, parameter, x, out);
  }
  void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) const override { cpu::map(kind, a, b, out); }
  int64_t first_non_finite(const Tensor& x) const override { return cpu::first_non_finite(x); }
  void reduce(ReduceKind kind, const Tensor& x, Tensor& out) const override { cpu::reduce(kind, x, out); }
  void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out) const override { cpu::softmax(kind, x, out); }
  void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out) const override {
    cpu::softmax_map(kind, p, t, out);
  }
  void convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& x, const Tensor& w,
                   Tensor& y) const override {
    require_precision();
    cpu::convolution(shape, algorithm, x, w, y);
  }
  void convolution_input_gradient(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& dy,
                                  const Tensor& w, Tensor& dx) const override {
    require_precision();
    cpu::convolution_input_gradient(shape, algorithm, dy, w, dx);
  }
  void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x, const Tensor& dy,
                                   Tensor& dw) const override {
    cpu::convolution_weight_gradient(shape, x, dy, dw);
  }
  void channel_affine(const ChannelAffine& arguments) const override { cpu::channel_affine(arguments); }
  void channel_affine_transposed(const ChannelAffineTransposed& arguments) const override {
    cpu::channel_affine_transposed(arguments);
  }
  void channel_affine_transposed_batch(const ChannelAffineTransposedBatch& arguments) const override {
    cpu::channel_affine_transposed_batch(arguments);
  }
  void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance) const override {
    cpu::channel_moments(x, mean, variance);
  }
  void row_norm(const RowNorm& arguments) const override { cpu::row_norm(arguments); }
  void row_norm_core(const RowNormCore& arguments) const override { cpu::row_norm_core(arguments); }
  void row_norm_sums(const RowNormSums& arguments) const override { cpu::row_norm_sums(arguments); }
  void step(const SgdStep& arguments) const override { cpu::step(arguments); }
  void step(const AdamStep& arguments) const override { cpu::step(arguments); }
  void random(const RandomFill& arguments) const override { cpu::random(arguments); }
  // To BLAS the rows are columns.
  int64_t cholesky(Tensor& a) const override {
    const int n = static_cast<int>(a.extent(0));
    return blas::potrf('U', n, a.mutable_data<double>(), n);
  }
  void cholesky_solve(const Tensor& factor, Tensor& b) const override {
    const int n = static_cast<int>(b.extent(0)), columns = static_cast<int>(b.extent(1));
    for (const char transpose : {'N', 'T'})
      blas::trsm('R', 'U', transpose, 'N', columns, n, 1.0, factor.data<double>(), n, b.mutable_data<double>(),
                 columns);
  }
  void gemm(const Tensor& a, const Tensor& b, Tensor& out, bool keep_b) const override {
    if (keep_b) require_precision();
    cpu::gemm(a, b, out, keep_b);
  }
  void attention(const Attention& arguments) const override { cpu::attention(arguments); }
  void attention_transposed(const AttentionTransposed& arguments) const override {
    cpu::attention_transposed(arguments);
  }
  void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where) const override {
    cpu::pool(kind, shape, x, out, where);
  }
  void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx) const override {
    cpu::average_pool_transposed(shape, dy, dx);
  }
  void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) const override {
    cpu::gather(x, axis, index, out);
  }
  void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out) const override {
    cpu::scatter_add(x, axis, index, out);
  }
  void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out) const override {
    cpu::cumsum(x, axis, reverse, out);
  }
  void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index) const override {
    cpu::argsort(x, axis, order, index);
  }
};

}  // namespace

const Backend& cpu_backend() {
  static const CpuBackend cpu;
  return cpu;
}

}  // namespace fastntk
