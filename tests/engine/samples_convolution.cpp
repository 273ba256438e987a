// Convolutions.
#include "engine/ops/convolution.h"
#include "engine/samples.h"
#include "engine/tape.h"

namespace fastntk::test {
namespace {

ConvolutionShape geometry_of(const Shape& x, const Shape& w, const Conv2dOptions& o) {
  return {.height = x[1],
          .width = x[2],
          .in_channels = x[3],
          .out_channels = w[1],
          .kernel_height = w[3],
          .kernel_width = w[4],
          .stride_height = o.stride[0],
          .stride_width = o.stride[1],
          .padding_height = o.padding[0],
          .padding_width = o.padding[1],
          .dilation_height = o.dilation[0],
          .dilation_width = o.dilation[1],
          .groups = o.groups};
}

Sample convolution_sample(const std::string& note, const Shape& x, const Shape& w, const Conv2dOptions& options) {
  return {.op = "conv2d",
          .note = note,
          .inputs = {{x}, {w}},
          .function = [=](const Values& v) { return conv2d(v[0], v[1], options); },
          .reference = [=](const Arrays& a) { return convolved(a[0], a[1], geometry_of(x, w, options)); },
          .saved = [](ActiveSet active) { return Saved{.inputs = (active & 1U) << 1 | (active & 2U) >> 1}; },
          .samples = x[0],
          .refusals = {{{x, {1, w[1], w[2] + 1, w[3], w[4]}}},
                       {{x, {x[0] + 1, w[1], w[2], w[3], w[4]}}},
                       {{x, {1, w[1], w[2], x[1] + 2 * options.padding[0] + 1, w[4]}}},
                       {{{4, 4, 3}, w}},
                       {{x, {w[1], w[2], w[3], w[4]}}}}};
}

// The transposes of x ∗ w: what the cotangent of a recorded convolution becomes. They are recorded on the tape that an
// input is on, or on one of their own when all inputs are constants.
Variable transposed(const Values& v, const std::function<std::pair<Variable, Variable>(Tape&)>& leaf_and_output,
                    const Variable& cotangent) {
  Tape own;
  Tape* tape = &own;
  for (const Variable& x : v)
    if (x.active()) tape = x.tape;
  const auto [leaf, output] = leaf_and_output(*tape);
  const Variable result = tape->vjp(output, cotangent, {&leaf, 1}, true)[0];
  return tape == &own ? result.constant() : result;
}

Shape output_shape(const Shape& x, const Shape& w, const Conv2dOptions& options) {
  const ConvolutionShape g = geometry_of(x, w, options);
  return {x[0], g.out_height(), g.out_width(), g.out_channels};
}

// dx of u and w.
Sample input_gradient_sample(const std::string& note, const Shape& x, const Shape& w, const Conv2dOptions& options) {
  return {.op = "conv2d_input_gradient",
          .note = note,
          .inputs = {{output_shape(x, w, options)}, {w}},
          .function =
              [=](const Values& v) {
                return transposed(
                    v,
                    [&](Tape& tape) {
                      Shape shape = x;
                      shape[0] = v[0].extent(0);
                      const Variable leaf = tape.leaf(Tensor::zeros(shape, v[0].dtype(), v[0].value.device()));
                      return std::pair(leaf, conv2d(leaf, v[1], options));
                    },
                    v[0]);
              },
          .reference =
              [=](const Arrays& a) {
                Shape shape = x;
                shape[0] = a[0].shape[0];
                return convolved_transposed_input(a[0], a[1], shape, geometry_of(x, w, options));
              },
          .saved = [](ActiveSet active) { return Saved{.inputs = (active & 1U) << 1 | (active & 2U) >> 1}; },
          .samples = x[0],
          .helpers = {"conv2d", "conv2d_weight_gradient"}};
}

// dw of x and u.
Sample weight_gradient_sample(const std::string& note, const Shape& x, const Shape& w, const Conv2dOptions& options) {
  return {.op = "conv2d_weight_gradient",
          .note = note,
          .inputs = {{x}, {output_shape(x, w, options)}},
          .function =
              [=](const Values& v) {
                return transposed(
                    v,
                    [&](Tape& tape) {
                      Shape shape = w;
                      if (shape[0] != 1) shape[0] = v[0].extent(0);
                      const Variable leaf = tape.leaf(Tensor::zeros(shape, v[0].dtype(), v[0].value.device()));
                      return std::pair(leaf, conv2d(v[0], leaf, options));
                    },
                    v[1]);
              },
          .reference =
              [=](const Arrays& a) {
                Shape shape = w;
                if (shape[0] != 1) shape[0] = a[0].shape[0];
                return convolved_transposed_weight(a[0], a[1], shape, geometry_of(x, w, options));
              },
          .saved = [](ActiveSet active) { return Saved{.inputs = (active & 1U) << 1 | (active & 2U) >> 1}; },
          .samples = x[0],
          .mixes_samples = w[0] == 1,
          .helpers = {"conv2d", "conv2d_input_gradient"}};
}

// x [N, H, W, C] spread by w [1 or N, C, O / groups, kh, kw]: every product is added where its window lies.
Array conv_transposed(const Array& x, const Array& w, const ConvTranspose2dOptions& o) {
  const Shape &s = x.shape, &k = w.shape;
  const int64_t in = s[3] / o.groups;
  const auto extent = [&](int i) {
    return (s[1 + i] - 1) * o.stride[i] - 2 * o.padding[i] + o.dilation[i] * (k[3 + i] - 1) + o.output_padding[i] + 1;
  };
  Array y({s[0], extent(0), extent(1), k[2] * o.groups});
  for_each_index(s, [&](const Shape& at) {
    for_each_index(k.slice(2, 5), [&](const Shape& tap) {
      const int64_t row = at[1] * o.stride[0] + tap[1] * o.dilation[0] - o.padding[0];
      const int64_t column = at[2] * o.stride[1] + tap[2] * o.dilation[1] - o.padding[1];
      if (row < 0 || row >= y.shape[1] || column < 0 || column >= y.shape[2]) return;
      y({at[0], row, column, at[3] / in * k[2] + tap[0]}) += x(at) * w({at[0], at[3], tap[0], tap[1], tap[2]});
    });
  });
  return y;
}

Sample conv_transpose_sample(const std::string& note, const Shape& x, const Shape& w,
                             const ConvTranspose2dOptions& options) {
  ConvTranspose2dOptions too_much = options;
  too_much.output_padding[1] = options.stride[1];
  return {.op = "conv_transpose2d",
          .note = note,
          .inputs = {{x}, {w}},
          .function = [=](const Values& v) { return conv_transpose2d(v[0], v[1], options); },
          .reference = [=](const Arrays& a) { return conv_transposed(a[0], a[1], options); },
          .samples = x[0],
          .composition = true,
          .refusals = {{{{4, 4, 3}, w}},
                       {{x, {1, w[1] + 1, w[2], w[3], w[4]}}},
                       {{x, {w[1], w[2], w[3], w[4]}}},
                       {{{x[0], 0, x[2], x[3]}, w}},
                       {{x, w}, [=](const Values& v) { return conv_transpose2d(v[0], v[1], too_much); }}}};
}

std::shared_ptr<void> hold(ConvolutionAlgorithm algorithm) {
  const ConvolutionAlgorithm before = convolution_algorithm();
  set_convolution_algorithm(algorithm);
  return {nullptr, [before](void*) { set_convolution_algorithm(before); }};
}

}  // namespace

Samples convolution_samples() {
  const Conv2dOptions plain{}, same{.padding = {1, 1}}, half{.stride = {2, 2}, .padding = {1, 1}};
  Samples all = {
      convolution_sample("3x3", {2, 6, 5, 4}, {1, 6, 4, 3, 3}, same),
      convolution_sample("3x3, no padding", {2, 5, 6, 3}, {1, 5, 3, 3, 3}, plain),
      convolution_sample("3x3, stride 2, odd image", {2, 7, 6, 4}, {1, 5, 4, 3, 3}, half),
      convolution_sample("1x1", {2, 4, 5, 6}, {1, 7, 6, 1, 1}, plain),
      convolution_sample("1x1, stride 2", {2, 5, 6, 4}, {1, 8, 4, 1, 1}, {.stride = {2, 2}}),
      convolution_sample("7x7 stem", {2, 9, 10, 3}, {1, 16, 3, 7, 7}, {.stride = {2, 2}, .padding = {3, 3}}),
      convolution_sample("height unlike width", {2, 7, 6, 3}, {1, 4, 3, 3, 2},
                         {.stride = {2, 1}, .padding = {0, 1}, .dilation = {1, 2}}),
      convolution_sample("dilated", {2, 7, 8, 3}, {1, 4, 3, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}),
      convolution_sample("groups", {2, 5, 5, 6}, {1, 4, 3, 3, 3}, {.padding = {1, 1}, .groups = 2}),
      convolution_sample("depthwise", {2, 5, 5, 4}, {1, 4, 1, 3, 3}, {.padding = {1, 1}, .groups = 4}),
      convolution_sample("depthwise, two each, stride 2", {2, 6, 5, 3}, {1, 6, 1, 3, 3},
                         {.stride = {2, 2}, .padding = {1, 1}, .groups = 3}),
      convolution_sample("the kernel is the image", {2, 4, 3, 5}, {1, 6, 5, 4, 3}, plain),
      convolution_sample("a stride past the kernel", {2, 7, 7, 3}, {1, 4, 3, 2, 2}, {.stride = {3, 3}}),
      convolution_sample("a pixel", {2, 1, 1, 17}, {1, 19, 17, 1, 1}, plain),
      convolution_sample("weights by sample", {2, 5, 4, 3}, {2, 4, 3, 3, 3}, same),
      convolution_sample("weights by sample, 1x1", {2, 4, 3, 5}, {2, 6, 5, 1, 1}, plain),
      convolution_sample("depthwise, 5x5, dilated", {2, 9, 8, 5}, {1, 5, 1, 5, 5},
                         {.padding = {4, 2}, .dilation = {2, 1}, .groups = 5}),
      convolution_sample("depthwise, weights by sample", {2, 5, 4, 3}, {2, 3, 1, 3, 3},
                         {.padding = {1, 1}, .groups = 3}),
      conv_transpose_sample("3x3", {2, 4, 3, 5}, {1, 5, 4, 3, 3}, {}),
      conv_transpose_sample("2x2, stride 2", {2, 3, 4, 4}, {1, 4, 3, 2, 2}, {.stride = {2, 2}}),
      conv_transpose_sample("3x3, stride 2, padding and output padding", {2, 3, 4, 3}, {1, 3, 5, 3, 3},
                            {.stride = {2, 2}, .padding = {1, 1}, .output_padding = {1, 1}}),
      conv_transpose_sample("height unlike width", {2, 4, 3, 3}, {1, 3, 2, 3, 4},
                            {.stride = {3, 2}, .padding = {0, 2}, .output_padding = {2, 0}}),
      conv_transpose_sample("dilated", {2, 4, 4, 2}, {1, 2, 3, 3, 3}, {.padding = {1, 2}, .dilation = {2, 3}}),
      conv_transpose_sample("groups", {2, 3, 3, 6}, {1, 6, 2, 3, 3}, {.stride = {2, 1}, .groups = 2}),
      conv_transpose_sample("depthwise", {2, 3, 4, 5}, {1, 5, 1, 4, 4},
                            {.stride = {2, 2}, .padding = {1, 1}, .groups = 5}),
      conv_transpose_sample("weights by sample", {2, 3, 4, 3}, {2, 3, 4, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}),
      convolution_sample("weights by sample, groups, stride 2", {2, 5, 4, 4}, {2, 4, 2, 3, 3},
                         {.stride = {2, 2}, .padding = {1, 1}, .groups = 2}),
  };
  // The widths that the vector kernels and Winograd's algorithm take, with whole and broken tiles of 4 by 4.
  const Conv2dOptions grouped{.stride = {2, 1}, .padding = {1, 1}, .groups = 2};
  for (const auto& sample : {input_gradient_sample, weight_gradient_sample}) {
    all.push_back(sample("3x3", {2, 5, 4, 3}, {1, 4, 3, 3, 3}, same));
    all.push_back(
        sample("3x3, stride 2, a rest that no window covers", {2, 6, 7, 3}, {1, 4, 3, 3, 3}, {.stride = {2, 2}}));
    all.push_back(sample("1x1, stride 2", {2, 5, 4, 3}, {1, 5, 3, 1, 1}, {.stride = {2, 2}}));
    all.push_back(sample("groups, strides that differ", {2, 6, 5, 4}, {1, 6, 2, 3, 3}, grouped));
    all.push_back(sample("dilated", {2, 6, 7, 3}, {1, 4, 3, 3, 2}, {.padding = {2, 1}, .dilation = {2, 2}}));
    all.push_back(sample("weights by sample", {2, 5, 4, 3}, {2, 4, 3, 3, 3}, same));
    all.push_back(sample("depthwise, stride 2", {2, 6, 5, 4}, {1, 4, 1, 3, 3},
                         {.stride = {2, 2}, .padding = {1, 1}, .groups = 4}));
    all.push_back(
        sample("depthwise, weights by sample", {2, 4, 5, 3}, {2, 3, 1, 3, 3}, {.padding = {1, 1}, .groups = 3}));
  }
  for (const auto algorithm : {ConvolutionAlgorithm::exact, ConvolutionAlgorithm::fast}) {
    const bool fast = algorithm == ConvolutionAlgorithm::fast;
    Samples wide = {
        convolution_sample("16 channels, 8x8", {2, 8, 8, 16}, {1, 16, 16, 3, 3}, same),
        convolution_sample("32 to 16 channels, 7x9", {2, 7, 9, 32}, {1, 16, 32, 3, 3}, same),
        convolution_sample("16 to 32 channels, no padding", {2, 6, 7, 16}, {1, 32, 16, 3, 3}, plain),
        convolution_sample("16 channels, weights by sample", {2, 5, 6, 16}, {2, 16, 16, 3, 3}, same),
        convolution_sample("16 to 32 channels, stride 2", {2, 7, 8, 16}, {1, 32, 16, 3, 3}, half),
        input_gradient_sample("16 to 32 channels", {2, 6, 7, 16}, {1, 32, 16, 3, 3}, same),
        weight_gradient_sample("16 to 32 channels", {2, 6, 7, 16}, {1, 32, 16, 3, 3}, same),
        weight_gradient_sample("16 channels, weights by sample", {2, 5, 6, 16}, {2, 16, 16, 3, 3}, same),
        convolution_sample("32 to 16 channels, 1x1", {2, 5, 3, 32}, {1, 16, 32, 1, 1}, plain),
    };
    for (Sample& s : wide) {
      s.note += fast ? ", fast" : ", exact";
      s.scope = [=] { return hold(algorithm); };
      if (fast) s.tolerance32 = 1e-4;
      all.push_back(s);
    }
  }
  return all;
}

}  // namespace fastntk::test
