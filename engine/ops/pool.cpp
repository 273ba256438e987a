#include "engine/ops/pool.h"

#include "engine/backend.h"
#include "engine/ops/gather.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

struct Pool : Op {
  Pool(const OpInfo& info, const Pool2dOptions& options) : Op(info), options(options) {}
  Pool2dOptions options;

  std::string attributes() const override {
    const auto& [kernel, stride, padding] = options;
    return fmt::format("kernel={}×{} stride={}×{} padding={}×{}", kernel[0], kernel[1], stride[0], stride[1],
                       padding[0], padding[1]);
  }
  // Of an image [..., H, W, C].
  PoolShape geometry(const Shape& image) const {
    require(image.rank() >= 3, "{} needs images [N, H, W, C], got {}", name(), image.str());
    const auto& [kernel, stride, padding] = options;
    for (const int i : {0, 1})
      require(
          stride[i] > 0 && padding[i] >= 0 && padding[i] < kernel[i] && image[i - 3] > 0 &&
              kernel[i] <= image[i - 3] + 2 * padding[i],
          "{}({}) of {}: the stride must be positive, the padding smaller than the kernel, and the kernel no larger "
          "than the padded image",
          name(), attributes(), image.str());
    return {image[-3], image[-2], image[-1], kernel[0], kernel[1], stride[0], stride[1], padding[0], padding[1]};
  }
  Shape pooled(const Shape& image) const {
    const PoolShape s = geometry(image);
    return image.leading(image.rank() - 3) + Shape{s.out_height(), s.out_width(), s.channels};
  }
  Needs needs(ActiveSet) const override { return {}; }
  bool mixes_samples(std::span<const Shape> in) const override { return in[0].rank() == 3; }
};

// [..., H, W, C] ↔ [..., HW, C]
Variable join_positions(const Variable& x) {
  return reshape(x, x.shape().leading(x.rank() - 3) + Shape{x.extent(-3) * x.extent(-2), x.extent(-1)});
}
Variable split_positions(const Variable& x, const Shape& image) {
  return reshape(x, x.shape().leading(x.rank() - 2) + image.trailing(3));
}

// The largest of each window. Extra: which position of the image it was, [N, OH·OW, C].
struct MaxPool final : Pool {
  static inline const OpInfo& info =
      register_op({"max_pool2d", "y = max_window x", "dy = dx at the position of the maximum"});
  explicit MaxPool(const Pool2dOptions& options) : Pool(info, options) {}

  Shape shape(std::span<const Shape> in) const override { return pooled(in[0]); }
  Tensor forward(std::span<const Tensor> in, ActiveSet active, std::vector<Tensor>& extras) const override {
    Tensor out(pooled(in[0].shape()), in[0].dtype(), in[0].device());
    Tensor where = active ? Tensor(out.shape(), DType::int64, in[0].device()) : Tensor();
    backend_of(in[0]).pool(PoolKind::max, geometry(in[0].shape()), in[0], out, active ? &where : nullptr);
    if (active) extras.push_back(join_positions(where).value);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return split_positions(gather(join_positions(t[0]), -2, at.extra(0)), at.output_shape());
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const Shape& image = at.input_shape(0);
    return {split_positions(scatter_add(join_positions(c), -2, at.extra(0), image[-3] * image[-2]), image)};
  }
};

// The matrix whose row i averages over ⌊i·in/out⌋ … ⌈(i+1)·in/out⌉ − 1, [1, …, 1, out, in] of this rank,
// of the type and on the device of `like`.
Tensor adaptive_averages(int64_t out, int64_t in, int rank, const Tensor& like) {
  Tensor matrix = Tensor::zeros({out, in}, like.dtype(), like.device());
  for (int64_t i = 0; i < out; i++) {
    const int64_t from = i * in / out, to = ((i + 1) * in + out - 1) / out;
    matrix.select(0, i).slice(0, from, to).fill(1 / static_cast<double>(to - from));
  }
  while (matrix.rank() < rank) matrix = matrix.unsqueeze(0);
  return matrix;
}

// The transpose of average pooling, back to images of `height` × `width`.
struct AveragePoolTransposed final : Pool {
  static inline const OpInfo& info =
      register_op({"average_pool2d_transposed", "y = Σ_{windows over it} x / |window|", "dy = the same of dx"});
  AveragePoolTransposed(const Pool2dOptions& options, int64_t height, int64_t width)
      : Pool(info, options), height(height), width(width) {}
  int64_t height, width;

  std::string attributes() const override { return fmt::format("to={}×{} {}", height, width, Pool::attributes()); }
  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= 3, "{} needs images [N, OH, OW, C], got {}", name(), in[0].str());
    const Shape image = in[0].leading(in[0].rank() - 3) + Shape{height, width, in[0][-1]};
    require(pooled(image) == in[0], "{}({}) of {}", name(), attributes(), in[0].str());
    return image;
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape pooled_shape = in[0].shape();
    Tensor out(shape(std::span(&pooled_shape, 1)), in[0].dtype(), in[0].device());
    backend_of(in[0]).average_pool_transposed(geometry(out.shape()), in[0], out);
    return out;
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override {
    return apply(AveragePoolTransposed(options, height, width), {t[0]});
  }
  std::vector<Variable> vjp(const Linearisation&, const Variable& c) const override {
    return {average_pool2d(c, options)};
  }
};

struct AveragePool final : Pool {
  static inline const OpInfo& info =
      register_op({"average_pool2d", "y = Σ_window x / |window|", "dy = Σ_window dx / |window|"});
  explicit AveragePool(const Pool2dOptions& options) : Pool(info, options) {}

  Shape shape(std::span<const Shape> in) const override { return pooled(in[0]); }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    Tensor out(pooled(in[0].shape()), in[0].dtype(), in[0].device());
    backend_of(in[0]).pool(PoolKind::average, geometry(in[0].shape()), in[0], out, nullptr);
    return out;
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override {
    return average_pool2d(t[0], options);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {apply(AveragePoolTransposed(options, at.input_shape(0)[-3], at.input_shape(0)[-2]), {c})};
  }
};

}  // namespace

Variable max_pool2d(const Variable& x, const Pool2dOptions& options) { return apply(MaxPool(options), {x}); }
Variable average_pool2d(const Variable& x, const Pool2dOptions& options) { return apply(AveragePool(options), {x}); }
Variable adaptive_average_pool2d(const Variable& x, int64_t height, int64_t width) {
  require(x.rank() == 4 && height > 0 && width > 0 && x.extent(1) > 0 && x.extent(2) > 0,
          "adaptive_average_pool2d to {}×{} needs images [N, H, W, C], got {}", height, width, x.shape().str());
  const int64_t n = x.extent(0), h = x.extent(1), w = x.extent(2), c = x.extent(3);
  if (h == height && w == width) return x;
  if (h % height == 0 && w % width == 0) {
    const int64_t kh = h / height, kw = w / width;
    return average_pool2d(x, {.kernel = {kh, kw}, .stride = {kh, kw}});
  }
  // Windows are products of intervals, so that the mean is taken along one axis after the other.
  const Variable columns = matmul(adaptive_averages(width, w, 4, x.value), x);  // [N, H, width, C]
  const Variable rows = matmul(adaptive_averages(height, h, 3, x.value), reshape(columns, {n, h, width * c}));
  return reshape(rows, {n, height, width, c});
}
Variable global_average_pool(const Variable& x) {
  require(x.rank() >= 3, "global_average_pool needs images [N, H, W, C], got {}", x.shape().str());
  return mean(x, {-3, -2});
}

}  // namespace fastntk
