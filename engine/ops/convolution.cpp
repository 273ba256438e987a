#include "engine/ops/convolution.h"

#include <array>
#include <atomic>

#include "engine/backend.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/reduce.h"

// Convolution is bilinear in x and w, and so are its two transposes; each of the three ops differentiates into the
// other two:
//   y = x ∗ w,   ⟨u, x ∗ w⟩ = ⟨input_gradient(u, w), x⟩ = ⟨weight_gradient(x, u), w⟩.
namespace fastntk {
namespace {

std::atomic<ConvolutionAlgorithm> algorithm_in_use{ConvolutionAlgorithm::fast};

std::string describe(const ConvolutionShape& s) {
  std::string text = fmt::format("kernel={}x{}", s.kernel_height, s.kernel_width);
  const auto pair = [&](const char* name, int64_t h, int64_t w, int64_t usual) {
    if (h != usual || w != usual)
      text += h == w ? fmt::format(" {}={}", name, h) : fmt::format(" {}={}x{}", name, h, w);
  };
  pair("stride", s.stride_height, s.stride_width, 1);
  pair("padding", s.padding_height, s.padding_width, 0);
  pair("dilation", s.dilation_height, s.dilation_width, 1);
  if (s.groups != 1) text += fmt::format(" groups={}", s.groups);
  return text;
}

// The leading (stack) axes of a result of two operands, either of which may have none.
Shape stack_of(const Shape& a, int rank_a, const Shape& b, int rank_b, const std::string& name) {
  require(a.rank() >= rank_a && b.rank() >= rank_b, "{}: shapes {} and {} have too few axes", name, a.str(), b.str());
  const Shape lead_a = a.leading(a.rank() - rank_a), lead_b = b.leading(b.rank() - rank_b);
  require(lead_a.rank() == 0 || lead_b.rank() == 0 || lead_a == lead_b, "{}: the stacks of {} and {} differ", name,
          a.str(), b.str());
  return lead_a.rank() ? lead_a : lead_b;
}

struct Bilinear : Op {
  Bilinear(const OpInfo& info, const ConvolutionShape& geometry, std::array<int, 2> ranks, int output_rank)
      : Op(info), geometry(geometry), ranks(ranks), output_rank(output_rank) {}
  ConvolutionShape geometry;
  std::array<int, 2> ranks;  // of the inputs without a stack
  int output_rank;

  std::string attributes() const override { return describe(geometry); }
  Needs needs(ActiveSet active) const override { return {.inputs = (active & 2U) >> 1 | (active & 1U) << 1}; }

  // Input i of a record that may itself have a stack, to be set against something with the stack axes `lead` before it.
  Variable input_under(const Linearisation& at, size_t i, const Shape& lead) const {
    const Variable x = at.input(static_cast<int>(i));
    return x.rank() == ranks[i] ? x : expand(x, lead + x.shape());
  }
  // A tangent [lead…, own shape] of input i, and the other input to apply the map to it.
  std::pair<Variable, Variable> factors(const Linearisation& at, size_t i, const Variable& t) const {
    const Shape& own = at.input_shape(static_cast<int>(i));
    const Shape lead = t.shape().leading(t.rank() - own.rank());
    const Shape stack = at.output_shape().leading(at.output_shape().rank() - output_rank);
    Variable tangent = t;
    if (lead.rank() && own.rank() == ranks[i]) {
      tangent = reshape(t, lead + Shape::filled(stack.rank(), 1) + own);
      tangent = expand(tangent, lead + stack + own);
    }
    return {tangent, input_under(at, 1 - i, lead)};
  }
  Shape lead_of(const Linearisation& at, const Variable& cotangent) const {
    return cotangent.shape().leading(cotangent.rank() - at.output_shape().rank());
  }

  Shape image() const { return {geometry.height, geometry.width, geometry.in_channels}; }
  Shape out_image() const { return {geometry.out_height(), geometry.out_width(), geometry.out_channels}; }
  Shape weight() const {
    return {geometry.out_channels, geometry.in_channels / geometry.groups, geometry.kernel_height,
            geometry.kernel_width};
  }
  void check(const Shape& images, const Shape& expected, const char* what) const {
    require(images.trailing(3) == expected, "{}: {} must end in {}, got {}", name(), what, expected.str(),
            images.str());
  }
  void check_weight(const Shape& w, int64_t samples) const {
    require(w.trailing(4) == weight() && (w[-5] == 1 || w[-5] == samples),
            "{}: weights must end in [1 or {}]{}, got {}", name(), samples, weight().str(), w.str());
  }
};

struct Conv2d final : Bilinear {
  static inline const OpInfo& info = register_op({"conv2d", "y = x ∗ w", "dy = dx ∗ w + x ∗ dw"});
  explicit Conv2d(const ConvolutionShape& geometry) : Bilinear(info, geometry, {4, 5}, 4) {}
  Shape shape(std::span<const Shape> in) const override {
    const Shape stack = stack_of(in[0], 4, in[1], 5, name());
    check(in[0], image(), "the input");
    check_weight(in[1], in[0][-4]);
    return stack + Shape{in[0][-4]} + out_image();
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    backend_of(in[0]).convolution(geometry, algorithm_in_use, in[0], in[1], out);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override;
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override;
};

struct InputGradient final : Bilinear {
  static inline const OpInfo& info =
      register_op({"conv2d_input_gradient", "x = u ∗ᵀ w, the transpose of conv2d in x", "dx = du ∗ᵀ w + u ∗ᵀ dw"});
  explicit InputGradient(const ConvolutionShape& geometry) : Bilinear(info, geometry, {4, 5}, 4) {}
  Shape shape(std::span<const Shape> in) const override {
    const Shape stack = stack_of(in[0], 4, in[1], 5, name());
    check(in[0], out_image(), "the cotangent");
    check_weight(in[1], in[0][-4]);
    return stack + Shape{in[0][-4]} + image();
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    backend_of(in[0]).convolution_input_gradient(geometry, algorithm_in_use, in[0], in[1], out);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override;
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override;
};

struct WeightGradient final : Bilinear {
  static inline const OpInfo& info =
      register_op({"conv2d_weight_gradient", "w = x ∗ᵀ u, the transpose of conv2d in w", "dw = dx ∗ᵀ u + x ∗ᵀ du"});
  WeightGradient(const ConvolutionShape& geometry, int64_t batch) : Bilinear(info, geometry, {4, 4}, 5), batch(batch) {}
  int64_t batch;  // 1: the sum over samples; N: one gradient for each

  std::string attributes() const override { return Bilinear::attributes() + fmt::format(" batch={}", batch); }
  Shape shape(std::span<const Shape> in) const override {
    const Shape stack = stack_of(in[0], 4, in[1], 4, name());
    check(in[0], image(), "the input");
    check(in[1], out_image(), "the cotangent");
    require(in[0][-4] == in[1][-4] && (batch == 1 || batch == in[0][-4]), "{}: {} and {} for {} sets of weights",
            name(), in[0].str(), in[1].str(), batch);
    return stack + Shape{batch} + weight();
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    backend_of(in[0]).convolution_weight_gradient(geometry, in[0], in[1], out);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override;
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override;
  bool mixes_samples(std::span<const Shape> in) const override { return batch != in[0][-4]; }
};

Variable convolve(const ConvolutionShape& s, const Variable& x, const Variable& w) { return apply(Conv2d(s), {x, w}); }
Variable input_gradient(const ConvolutionShape& s, const Variable& c, const Variable& w) {
  return apply(InputGradient(s), {c, w});
}
Variable weight_gradient(const ConvolutionShape& s, const Variable& x, const Variable& c, int64_t batch) {
  return apply(WeightGradient(s, batch), {x, c});
}

// Sums a cotangent over the stack that input i did not have (it was shared by the stack).
Variable to_input(const Linearisation& at, int i, const Variable& v, const Variable& c) {
  return sum_to(v, at.input_shape(i), v.rank() - (c.rank() - at.output_shape().rank()));
}

Variable Conv2d::jvp(const Linearisation& at, std::span<const Variable> t) const {
  Variable sum;
  if (t[0].defined()) {
    const auto [dx, w] = factors(at, 0, t[0]);
    sum = convolve(geometry, dx, w);
  }
  if (t[1].defined()) {
    const auto [dw, x] = factors(at, 1, t[1]);
    sum = add_defined(sum, convolve(geometry, x, dw));
  }
  return sum;
}
std::vector<Variable> Conv2d::vjp(const Linearisation& at, const Variable& c) const {
  const Shape lead = lead_of(at, c);
  Variable dx, dw;
  if (at.active(0)) dx = to_input(at, 0, input_gradient(geometry, c, input_under(at, 1, lead)), c);
  if (at.active(1))
    dw = to_input(at, 1, weight_gradient(geometry, input_under(at, 0, lead), c, at.input_shape(1)[-5]), c);
  return {dx, dw};
}

Variable InputGradient::jvp(const Linearisation& at, std::span<const Variable> t) const {
  Variable sum;
  if (t[0].defined()) {
    const auto [du, w] = factors(at, 0, t[0]);
    sum = input_gradient(geometry, du, w);
  }
  if (t[1].defined()) {
    const auto [dw, u] = factors(at, 1, t[1]);
    sum = add_defined(sum, input_gradient(geometry, u, dw));
  }
  return sum;
}
std::vector<Variable> InputGradient::vjp(const Linearisation& at, const Variable& c) const {
  const Shape lead = lead_of(at, c);
  Variable du, dw;
  if (at.active(0)) du = to_input(at, 0, convolve(geometry, c, input_under(at, 1, lead)), c);
  if (at.active(1))
    dw = to_input(at, 1, weight_gradient(geometry, c, input_under(at, 0, lead), at.input_shape(1)[-5]), c);
  return {du, dw};
}

Variable WeightGradient::jvp(const Linearisation& at, std::span<const Variable> t) const {
  Variable sum;
  if (t[0].defined()) {
    const auto [dx, u] = factors(at, 0, t[0]);
    sum = weight_gradient(geometry, dx, u, batch);
  }
  if (t[1].defined()) {
    const auto [du, x] = factors(at, 1, t[1]);
    sum = add_defined(sum, weight_gradient(geometry, x, du, batch));
  }
  return sum;
}
std::vector<Variable> WeightGradient::vjp(const Linearisation& at, const Variable& c) const {
  const Shape lead = lead_of(at, c);
  Variable dx, du;
  if (at.active(0)) dx = to_input(at, 0, input_gradient(geometry, input_under(at, 1, lead), c), c);
  if (at.active(1)) du = to_input(at, 1, convolve(geometry, input_under(at, 0, lead), c), c);
  return {dx, du};
}

}  // namespace

Variable conv2d(const Variable& x, const Variable& weight, const Conv2dOptions& o) {
  require(x.rank() >= 4 && weight.rank() >= 5,
          "conv2d needs x [N, H, W, C] and weights [1 or N, O, I, kh, kw], got {} and {}", x.shape().str(),
          weight.shape().str());
  const ConvolutionShape s{.height = x.extent(-3),
                           .width = x.extent(-2),
                           .in_channels = x.extent(-1),
                           .out_channels = weight.extent(-4),
                           .kernel_height = weight.extent(-2),
                           .kernel_width = weight.extent(-1),
                           .stride_height = o.stride[0],
                           .stride_width = o.stride[1],
                           .padding_height = o.padding[0],
                           .padding_width = o.padding[1],
                           .dilation_height = o.dilation[0],
                           .dilation_width = o.dilation[1],
                           .groups = o.groups};
  require(s.groups > 0 && s.in_channels % s.groups == 0 && s.out_channels % s.groups == 0 &&
              weight.extent(-3) * s.groups == s.in_channels,
          "conv2d: {} channels in {} groups with weights {}", s.in_channels, s.groups, weight.shape().str());
  require(s.stride_height > 0 && s.stride_width > 0 && s.padding_height >= 0 && s.padding_width >= 0 &&
              s.dilation_height > 0 && s.dilation_width > 0 &&
              s.height + 2 * s.padding_height > s.dilation_height * (s.kernel_height - 1) &&
              s.width + 2 * s.padding_width > s.dilation_width * (s.kernel_width - 1),
          "conv2d: an image of {}x{} with {} leaves no output", s.height, s.width, describe(s));
  return convolve(s, x, weight);
}

Variable conv_transpose2d(const Variable& x, const Variable& weight, const ConvTranspose2dOptions& o) {
  require(x.rank() >= 4 && weight.rank() >= 5,
          "conv_transpose2d needs x [N, H, W, C] and weights [1 or N, C, O / groups, kh, kw], got {} and {}",
          x.shape().str(), weight.shape().str());
  require(o.groups > 0 && x.extent(-1) % o.groups == 0 && weight.extent(-4) == x.extent(-1),
          "conv_transpose2d: {} channels in {} groups with weights {}", x.extent(-1), o.groups, weight.shape().str());
  for (const int i : {0, 1})
    require(o.stride[i] > 0 && o.dilation[i] > 0 && o.padding[i] >= 0 && o.output_padding[i] >= 0 &&
                o.output_padding[i] < o.stride[i],
            "conv_transpose2d: stride {}, dilation {}, padding {}, output padding {} (which must be less than the "
            "stride)",
            o.stride[i], o.dilation[i], o.padding[i], o.output_padding[i]);
  const auto extent = [&](int i) {
    return (x.extent(i - 3) - 1) * o.stride[i] - 2 * o.padding[i] + o.dilation[i] * (weight.extent(i - 2) - 1) +
           o.output_padding[i] + 1;
  };
  // The convolution that this transposes, from the output to x.
  const ConvolutionShape s{.height = extent(0),
                           .width = extent(1),
                           .in_channels = weight.extent(-3) * o.groups,
                           .out_channels = x.extent(-1),
                           .kernel_height = weight.extent(-2),
                           .kernel_width = weight.extent(-1),
                           .stride_height = o.stride[0],
                           .stride_width = o.stride[1],
                           .padding_height = o.padding[0],
                           .padding_width = o.padding[1],
                           .dilation_height = o.dilation[0],
                           .dilation_width = o.dilation[1],
                           .groups = o.groups};
  require(x.extent(-3) > 0 && x.extent(-2) > 0 && s.height > 0 && s.width > 0,
          "conv_transpose2d: an image of {}x{} with {} leaves no output", x.extent(-3), x.extent(-2), describe(s));
  return input_gradient(s, x, weight);
}

void set_convolution_algorithm(ConvolutionAlgorithm algorithm) { algorithm_in_use = algorithm; }
ConvolutionAlgorithm convolution_algorithm() { return algorithm_in_use; }

}  // namespace fastntk
