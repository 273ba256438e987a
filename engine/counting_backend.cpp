#include "engine/counting_backend.h"

#include <mutex>

#include "engine/device.h"

namespace fastntk {
namespace {

// Bytes of the elements that are there: an axis along which they are repeated counts once.
double bytes_in(const Tensor& t) {
  int64_t elements = 1;
  for (int axis = 0; axis < t.rank(); axis++)
    if (t.strides()[axis] != 0) elements *= t.extent(axis);
  return static_cast<double>(elements) * static_cast<double>(size_of(t.dtype()));
}
double bytes_in(const Tensor* t) { return t ? bytes_in(*t) : 0; }
double count(const Tensor& t) { return static_cast<double>(t.elements()); }
template <class... Tensors>
double bytes_of_all(const Tensors&... tensors) {
  return (bytes_in(tensors) + ... + 0.0);
}

// Operations of a softmax for each element: the maximum, the difference, the exponential, the sum, the quotient.
constexpr double softmax_flops = 5;

class CountingBackend final : public Backend {
 public:
  explicit CountingBackend(const Backend& inner) : inner_(inner) {}

  std::map<std::string, KernelWork> work() const {
    const std::lock_guard lock(mutex_);
    return work_;
  }

  void copy(const Tensor& source, Tensor& out) const override {
    note("copy", 0, bytes_of_all(source, out));
    inner_.copy(source, out);
  }
  void fill(Tensor& out, double value) const override {
    note("fill", 0, bytes_in(out));
    inner_.fill(out, value);
  }
  void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) const override {
    note("map", count(out), bytes_of_all(x, out));
    inner_.map(kind, parameter, x, out);
  }
  void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) const override {
    note("map", count(out), bytes_of_all(a, b, out));
    inner_.map(kind, a, b, out);
  }
  int64_t first_non_finite(const Tensor& x) const override {
    note("map", count(x), bytes_in(x));
    return inner_.first_non_finite(x);
  }
  void random(const RandomFill& m) const override {
    note("random", 0, bytes_in(m.out));
    inner_.random(m);
  }
  void reduce(ReduceKind kind, const Tensor& x, Tensor& out) const override {
    note("reduce", count(x), bytes_of_all(x, out));
    inner_.reduce(kind, x, out);
  }
  void softmax(SoftmaxKind kind, const Tensor& x, Tensor& out) const override {
    note("softmax", softmax_flops * count(x), bytes_of_all(x, out));
    inner_.softmax(kind, x, out);
  }
  void softmax_map(SoftmaxMap kind, const Tensor& p, const Tensor& t, Tensor& out) const override {
    note("softmax", 4 * count(t), bytes_of_all(p, t, out));
    inner_.softmax_map(kind, p, t, out);
  }
  void gemm(const Tensor& a, const Tensor& b, Tensor& out, bool keep_b) const override {
    note("gemm", 2 * count(out) * static_cast<double>(a.extent(-1)), bytes_of_all(a, b, out));
    inner_.gemm(a, b, out, keep_b);
  }
  void attention(const Attention& m) const override {
    const double pairs = count(m.y) / static_cast<double>(m.y.extent(-1)) * static_cast<double>(m.k.extent(-2));
    note("attention", pairs * (2 * inner_extents(m.q, m.v) + softmax_flops), bytes_of_all(m.q, m.k, m.v, m.y));
    inner_.attention(m);
  }
  void attention_transposed(const AttentionTransposed& m) const override {
    const auto d = static_cast<double>(m.q.extent(-1)), e = static_cast<double>(m.v.extent(-1));
    const double pairs = count(m.q) / d * static_cast<double>(m.k.extent(-2)),
                 stacked = pairs * static_cast<double>(m.cotangent.extent(0));
    // The probabilities once; then for each cotangent those of the transposed softmax, if q or k is asked for.
    double flops = pairs * (2 * d + softmax_flops);
    if (m.dq || m.dk) flops += stacked * (2 * e + 4);
    flops += stacked * 2 * ((m.dq ? d : 0) + (m.dk ? d : 0) + (m.dv ? e : 0));
    note("attention, transposed", flops, bytes_of_all(m.q, m.k, m.v, m.cotangent, m.dq, m.dk, m.dv));
    inner_.attention_transposed(m);
  }
  void pool(PoolKind kind, const PoolShape& shape, const Tensor& x, Tensor& out, Tensor* where) const override {
    note("pool", count(out) * window(shape), bytes_of_all(x, out, where));
    inner_.pool(kind, shape, x, out, where);
  }
  void average_pool_transposed(const PoolShape& shape, const Tensor& dy, Tensor& dx) const override {
    note("pool", count(dy) * window(shape), bytes_of_all(dy, dx));
    inner_.average_pool_transposed(shape, dy, dx);
  }
  void gather(const Tensor& x, int axis, const Tensor& index, Tensor& out) const override {
    note("gather and scatter", 0, bytes_of_all(index, out, out));
    inner_.gather(x, axis, index, out);
  }
  void scatter_add(const Tensor& x, int axis, const Tensor& index, Tensor& out) const override {
    note("gather and scatter", count(x), bytes_of_all(x, index, out));
    inner_.scatter_add(x, axis, index, out);
  }
  void cumsum(const Tensor& x, int axis, bool reverse, Tensor& out) const override {
    note("scan", count(x), bytes_of_all(x, out));
    inner_.cumsum(x, axis, reverse, out);
  }
  void argsort(const Tensor& x, int axis, SortOrder order, Tensor& index) const override {
    note("sort", 0, bytes_of_all(x, index));
    inner_.argsort(x, axis, order, index);
  }
  void convolution(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& x, const Tensor& w,
                   Tensor& y) const override {
    note("convolution", flops_of(shape, y), bytes_of_all(x, w, y));
    inner_.convolution(shape, algorithm, x, w, y);
  }
  void convolution_input_gradient(const ConvolutionShape& shape, ConvolutionAlgorithm algorithm, const Tensor& dy,
                                  const Tensor& w, Tensor& dx) const override {
    note("convolution, input gradient", flops_of(shape, dy), bytes_of_all(dy, w, dx));
    inner_.convolution_input_gradient(shape, algorithm, dy, w, dx);
  }
  void convolution_weight_gradient(const ConvolutionShape& shape, const Tensor& x, const Tensor& dy,
                                   Tensor& dw) const override {
    note("convolution, weight gradient", flops_of(shape, dy), bytes_of_all(x, dy, dw));
    inner_.convolution_weight_gradient(shape, x, dy, dw);
  }
  void channel_affine(const ChannelAffine& m) const override {
    note("channel affine", count(m.y) * (3 + (m.residual != nullptr) + m.relu),
         bytes_of_all(m.x, m.mean, m.a, m.b, m.residual, m.y));
    inner_.channel_affine(m);
  }
  void channel_affine_transposed(const ChannelAffineTransposed& m) const override {
    note("channel affine, transposed",
         count(m.cotangent) * ((m.y != nullptr) + (m.sum_g != nullptr) + 3 * (m.sum_gx != nullptr) + (m.dx != nullptr)),
         bytes_of_all(m.cotangent, m.y, m.x, m.mean, m.a, m.sum_g, m.sum_gx, m.masked, m.dx));
    inner_.channel_affine_transposed(m);
  }
  void channel_affine_transposed_batch(const ChannelAffineTransposedBatch& m) const override {
    note("channel affine, transposed", count(m.cotangent) * (5 + (m.y != nullptr)),
         bytes_of_all(m.cotangent, m.y, m.x, m.mean, m.a, m.slope, m.constant, m.dx));
    inner_.channel_affine_transposed_batch(m);
  }
  void channel_moments(const Tensor& x, Tensor& mean, Tensor& variance) const override {
    note("reduce", 4 * count(x), bytes_of_all(x, mean, variance));
    inner_.channel_moments(x, mean, variance);
  }
  void row_norm(const RowNorm& m) const override {
    // Mean, square and sum, difference and product; a and b.
    note("row norm", count(m.y) * (4 + m.centre + (m.a != nullptr) + (m.b != nullptr)),
         bytes_of_all(m.x, m.a, m.b, m.y, m.mean, m.rstd));
    inner_.row_norm(m);
  }
  void row_norm_core(const RowNormCore& m) const override {
    // x̂, its product with u and their sum, the combination; before and after.
    note("row norm", count(m.out) * (7 + 2 * (m.mean != nullptr) + (m.before != nullptr) + (m.after != nullptr)),
         bytes_of_all(m.t, m.x, m.mean, m.rstd, m.before, m.after, m.out));
    inner_.row_norm_core(m);
  }
  void row_norm_sums(const RowNormSums& m) const override {
    note("row norm", count(m.t) * ((m.sum != nullptr) + 4 * (m.sum_xhat != nullptr)),
         bytes_of_all(m.t, m.x, m.mean, m.rstd, m.sum, m.sum_xhat));
    inner_.row_norm_sums(m);
  }
  void step(const SgdStep& m) const override {
    note("optimiser", 6 * count(m.theta), bytes_of_all(m.gradient, m.theta, m.velocity));
    inner_.step(m);
  }
  void step(const AdamStep& m) const override {
    note("optimiser", 14 * count(m.theta), bytes_of_all(m.gradient, m.theta, m.mean, m.square));
    inner_.step(m);
  }
  int64_t cholesky(Tensor& a) const override {
    const double n = static_cast<double>(a.extent(0));
    note("cholesky", n * n * n / 3, bytes_in(a));
    return inner_.cholesky(a);
  }
  void cholesky_solve(const Tensor& factor, Tensor& b) const override {
    note("cholesky", 2 * count(b) * static_cast<double>(b.extent(0)), bytes_of_all(factor, b, b));
    inner_.cholesky_solve(factor, b);
  }

 private:
  static double inner_extents(const Tensor& q, const Tensor& v) {
    return static_cast<double>(q.extent(-1) + v.extent(-1));
  }
  static double window(const PoolShape& shape) { return static_cast<double>(shape.kernel_height * shape.kernel_width); }
  // Of all images whose outputs, or cotangents of outputs, these are.
  static double flops_of(const ConvolutionShape& shape, const Tensor& outputs) {
    return shape.flops() * count(outputs) / static_cast<double>(shape.output_elements());
  }
  void note(const char* family, double flops, double bytes) const {
    const std::lock_guard lock(mutex_);
    KernelWork& w = work_[family];
    w.launches++, w.flops += flops, w.bytes += bytes;
  }

  const Backend& inner_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, KernelWork> work_;
};

std::mutex one_at_a_time;
std::unique_ptr<CountingBackend> counting;

}  // namespace

WorkCounter::WorkCounter() {
  const std::lock_guard lock(one_at_a_time);
  require(!counting, "work is being counted already");
  counting = std::make_unique<CountingBackend>(cpu_backend());
  set_cpu_backend(counting.get());
}

WorkCounter::~WorkCounter() {
  const std::lock_guard lock(one_at_a_time);
  set_cpu_backend(nullptr);
  counting.reset();
}

std::map<std::string, KernelWork> WorkCounter::work() const { return counting->work(); }

}  // namespace fastntk
