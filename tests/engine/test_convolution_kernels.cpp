// Every convolution kernel against a naive double reference, on sizes that divide nothing; bits; adjointness.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/convolution.h"
#include "engine/cpu/direct.h"
#include "engine/cpu/unfold.h"
#include "engine/cpu/winograd.h"
#include "engine/parallel.h"

using namespace fastntk;
using namespace fastntk::cpu;

namespace {

ConvolutionShape shape(int64_t height, int64_t width, int64_t in_channels, int64_t out_channels, int64_t kernel = 3,
                       int64_t stride = 1, int64_t padding = 1, int64_t dilation = 1, int64_t groups = 1) {
  return {.height = height,
          .width = width,
          .in_channels = in_channels,
          .out_channels = out_channels,
          .kernel_height = kernel,
          .kernel_width = kernel,
          .stride_height = stride,
          .stride_width = stride,
          .padding_height = padding,
          .padding_width = padding,
          .dilation_height = dilation,
          .dilation_width = dilation,
          .groups = groups};
}

std::string text(const ConvolutionShape& s) {
  return fmt::format("{}x{}x{} -> {}, kernel {}x{}, stride {}x{}, padding {}x{}, dilation {}x{}, groups {}", s.height,
                     s.width, s.in_channels, s.out_channels, s.kernel_height, s.kernel_width, s.stride_height,
                     s.stride_width, s.padding_height, s.padding_width, s.dilation_height, s.dilation_width, s.groups);
}

struct Case {
  ConvolutionShape shape;
  const char *forward, *gradient;  // expected kernels in float32, fast
};

std::vector<Case> cases() {
  const char *winograd = "winograd F(4x4)", *direct = "direct 3x3", *strided = "direct 3x3 stride 2";
  std::vector<Case> list = {
      // Winograd: whole tiles, partial tiles, odd numbers of channel blocks, one block of weights and more
      {shape(28, 28, 16, 16), winograd, winograd},
      {shape(14, 14, 32, 32), winograd, winograd},
      {shape(7, 7, 64, 64), winograd, winograd},
      {shape(4, 4, 128, 96), winograd, winograd},
      {shape(13, 11, 16, 32), winograd, winograd},
      {shape(11, 13, 48, 16), winograd, winograd},
      {shape(3, 4, 16, 48), winograd, winograd},
      {shape(12, 9, 32, 32, 3, 1, 0), winograd, winograd},
      {shape(9, 12, 16, 32, 3, 1, 2), winograd, winograd},
      // too small for Winograd
      {shape(2, 2, 32, 64), direct, direct},
      {shape(1, 1, 16, 16), direct, direct},
      {shape(1, 5, 16, 16), direct, direct},
      // stride 2: even and odd extents, every width of the last tile
      {shape(28, 28, 16, 32, 3, 2), strided, strided},
      {shape(15, 13, 16, 48, 3, 2), strided, strided},
      {shape(7, 8, 64, 32, 3, 2), strided, strided},
      {shape(1, 2, 16, 16, 3, 2), strided, strided},
      {shape(5, 67, 32, 32, 3, 2), strided, strided},
      {shape(9, 9, 16, 16, 2, 2, 0), "direct 2x2 stride 2", "direct 2x2 stride 2"},
      {shape(10, 11, 16, 16, 1, 2, 1), "direct 1x1 stride 2", "direct 1x1 stride 2"},
      {shape(11, 10, 16, 32, 3, 3, 0), "direct 3x3 stride 3", "direct 3x3 stride 3"},
      {shape(8, 7, 32, 16, 5, 1, 2), "direct 5x5", "direct 5x5"},
      {shape(9, 10, 16, 16, 3, 1, 2, 2), direct, direct},
      {shape(12, 9, 16, 16, 3, 2, 3, 2), strided, strided},
      {shape(6, 6, 16, 16, 3, 1, 4), direct, direct},
      // first layers
      {shape(28, 28, 1, 16), direct, "unfold"},
      {shape(9, 33, 3, 64), direct, "unfold"},
      {shape(23, 21, 3, 48, 7, 2, 3), "direct 7x7 stride 2", "unfold"},
      {shape(9, 7, 2, 32, 3, 2), strided, "unfold"},
      // 1x1
      {shape(7, 9, 24, 40, 1, 1, 0), "pointwise", "pointwise"},
      {shape(9, 7, 16, 32, 1, 2, 0), "pointwise", "pointwise"},
      {shape(10, 8, 5, 7, 1, 3, 0), "pointwise", "pointwise"},
      {shape(3, 4, 5, 6, 1, 1, 1), "unfold", "unfold"},
      // everything else
      {shape(9, 8, 5, 7), "unfold", "unfold"},
      {shape(12, 13, 10, 6, 5, 2, 3), "unfold", "unfold"},
      {shape(12, 11, 8, 12, 3, 2, 2, 2, 4), "unfold", "unfold"},
      {shape(11, 12, 6, 8, 3, 1, 3, 3), "unfold", "unfold"},
      {shape(32, 32, 3, 20, 16, 16, 0), "unfold", "unfold"},
      {shape(40, 40, 7, 3, 9, 1, 4), "unfold", "unfold"},
      {shape(8, 9, 13, 13, 3, 1, 1, 1, 13), "depthwise", "depthwise"},
      {shape(9, 11, 16, 16, 5, 2, 2, 1, 16), "depthwise", "depthwise"},
      {shape(6, 7, 4, 8, 3, 1, 1, 1, 4), "unfold", "unfold"},
      {shape(1, 1, 1, 1, 1, 1, 0), "pointwise", "pointwise"},
  };
  // Nothing square.
  ConvolutionShape s = shape(11, 9, 16, 32);
  s.kernel_width = 5, s.stride_height = 2, s.padding_width = 3;
  list.push_back({s, "direct 3x5 stride 2x1", "direct 3x5 stride 2x1"});
  s.in_channels = 6, s.dilation_height = 2, s.stride_width = 3;
  list.push_back({s, "unfold", "unfold"});
  return list;
}

// dx += or y += each product of the convolution, in double.
std::vector<double> reference(const ConvolutionShape& s, int64_t images, const std::vector<double>& weights,
                              const std::vector<double>& in, bool gradient) {
  std::vector<double> out(static_cast<size_t>(images * (gradient ? s.input_elements() : s.output_elements())));
  const int64_t C = s.in_channels / s.groups, K = s.out_channels / s.groups;
  for (int64_t n = 0; n < images; n++)
    for (int64_t oh = 0; oh < s.out_height(); oh++)
      for (int64_t ow = 0; ow < s.out_width(); ow++)
        for (int64_t i = 0; i < s.kernel_height; i++)
          for (int64_t j = 0; j < s.kernel_width; j++) {
            const int64_t h = oh * s.stride_height - s.padding_height + i * s.dilation_height;
            const int64_t w = ow * s.stride_width - s.padding_width + j * s.dilation_width;
            if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
            for (int64_t k = 0; k < s.out_channels; k++)
              for (int64_t c = 0; c < C; c++) {
                const auto x = static_cast<size_t>(((n * s.height + h) * s.width + w) * s.in_channels + k / K * C + c);
                const auto y =
                    static_cast<size_t>(((n * s.out_height() + oh) * s.out_width() + ow) * s.out_channels + k);
                const double weight =
                    weights[static_cast<size_t>(((k * C + c) * s.kernel_height + i) * s.kernel_width + j)];
                if (gradient)
                  out[x] += weight * in[y];
                else
                  out[y] += weight * in[x];
              }
          }
  return out;
}

template <class T>
std::vector<T> normal(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<T> values(static_cast<size_t>(count));
  for (T& v : values) v = static_cast<T>(distribution(random));
  return values;
}
template <class T>
std::vector<double> widen(const std::vector<T>& v) {
  return {v.begin(), v.end()};
}

template <class T>
PackedConvolution<T> make(bool gradient, const ConvolutionShape& s, const std::vector<T>& weights,
                          ConvolutionAlgorithm algorithm, Isa instructions = isa()) {
  return gradient ? PackedConvolution<T>::input_gradient(s, weights.data(), algorithm, instructions)
                  : PackedConvolution<T>::forward(s, weights.data(), algorithm, instructions);
}
int64_t in_elements(const ConvolutionShape& s, bool gradient) {
  return gradient ? s.output_elements() : s.input_elements();
}
int64_t out_elements(const ConvolutionShape& s, bool gradient) {
  return gradient ? s.input_elements() : s.output_elements();
}

// The output starts as NaN: every element must be written.
template <class T, class Kernel>
std::vector<T> run(const Kernel& kernel, const ConvolutionShape& s, bool gradient, int64_t images, const T* in) {
  std::vector<T> out(static_cast<size_t>(images * out_elements(s, gradient)), std::numeric_limits<T>::quiet_NaN());
  kernel.run(images, in, out.data());
  return out;
}
// Largest error over largest value; NaN counts as infinite.
template <class T>
double error(const std::vector<T>& got, const std::vector<double>& expected) {
  double worst = 0, largest = 1e-300;
  for (size_t i = 0; i < got.size(); i++) {
    const double e = std::abs(static_cast<double>(got[i]) - expected[i]);
    if (!(e <= worst)) worst = std::isnan(e) ? std::numeric_limits<double>::infinity() : e;
    largest = std::max(largest, std::abs(expected[i]));
  }
  return worst / largest;
}
template <class T>
bool same_bits(const T* a, const T* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(T)) == 0;
}

template <class T>
void check_values(const Case& c) {
  const ConvolutionShape& s = c.shape;
  const int64_t images = 3;
  const auto weights = normal<T>(s.weight_elements(), 1);
  for (const bool gradient : {false, true}) {
    const auto in = normal<T>(images * in_elements(s, gradient), 2);
    const auto expected = reference(s, images, widen(weights), widen(in), gradient);
    for (const Isa i : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (i > isa()) continue;
      for (const auto algorithm : {ConvolutionAlgorithm::exact, ConvolutionAlgorithm::fast}) {
        const auto kernel = make(gradient, s, weights, algorithm, i);
        INFO(text(s) << (gradient ? ", input gradient, " : ", forward, ") << kernel.kernel() << ", " << name_of(i));
        const bool winograd = std::string(kernel.kernel()) == "winograd F(4x4)";
        if (sizeof(T) == 4 && algorithm == ConvolutionAlgorithm::fast)
          CHECK(std::string(kernel.kernel()) == (gradient ? c.gradient : c.forward));
        if (algorithm == ConvolutionAlgorithm::exact) CHECK(!winograd);
        CHECK(kernel.bytes() > 0);
        const double tolerance = sizeof(T) == 8 ? 1e-14 : winograd ? 3e-5 : 3e-6;
        CHECK(error(run(kernel, s, gradient, images, in.data()), expected) < tolerance);
      }
    }
  }
}

template <class T>
void check_bits(const ConvolutionShape& s, ConvolutionAlgorithm algorithm, Isa instructions) {
  const int64_t images = 9;
  const auto weights = normal<T>(s.weight_elements(), 3);
  for (const bool gradient : {false, true}) {
    const auto kernel = make(gradient, s, weights, algorithm, instructions);
    INFO(text(s) << (gradient ? ", input gradient, " : ", forward, ") << kernel.kernel() << ", "
                 << name_of(instructions));
    const auto per_in = static_cast<size_t>(in_elements(s, gradient)),
               per_out = static_cast<size_t>(out_elements(s, gradient));
    auto in = normal<T>(images * in_elements(s, gradient), 4);
    const auto batch = run(kernel, s, gradient, images, in.data());
    std::vector<T> alone(per_out);
    bool equal = true;
    for (size_t n = 0; n < static_cast<size_t>(images); n++) {
      kernel.run(1, in.data() + n * per_in, alone.data());
      equal = equal && same_bits(alone.data(), batch.data() + n * per_out, per_out);
    }
    CHECK(equal);
    const int threads = thread_count();
    set_thread_count(3);
    CHECK(same_bits(run(kernel, s, gradient, images, in.data()).data(), batch.data(), batch.size()));
    // Several threads in the same object, each with images of its own.
    std::vector<T> apart(batch.size());
    parallel_for(3, [&](int64_t i) {
      const auto n = static_cast<size_t>(i) * 3;
      kernel.run(3, in.data() + n * per_in, apart.data() + n * per_out);
    });
    CHECK(same_bits(apart.data(), batch.data(), batch.size()));
    set_thread_count(threads);
    // A NaN in one image is not seen by its neighbours.
    std::fill(in.begin() + static_cast<int64_t>(4 * per_in), in.begin() + static_cast<int64_t>(5 * per_in),
              std::numeric_limits<T>::quiet_NaN());
    const auto poisoned = run(kernel, s, gradient, images, in.data());
    CHECK(same_bits(poisoned.data(), batch.data(), 4 * per_out));
    CHECK(same_bits(poisoned.data() + 5 * per_out, batch.data() + 5 * per_out, 4 * per_out));
  }
}

template <class T>
double dot(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

}  // namespace

TEST_CASE("convolution kernels agree with a naive double reference", "[convolution]") {
  for (const Case& c : cases()) {
    check_values<float>(c);
    check_values<double>(c);
  }
}

TEST_CASE("the general path agrees with the reference on the shapes of the fast ones", "[convolution]") {
  for (const ConvolutionShape& s : {shape(13, 11, 16, 32), shape(15, 13, 16, 48, 3, 2), shape(7, 9, 24, 40, 1, 1, 0),
                                    shape(9, 7, 16, 32, 1, 2, 0), shape(8, 9, 13, 13, 3, 1, 1, 1, 13)}) {
    INFO(text(s));
    const auto weights = normal<double>(s.weight_elements(), 1);
    const auto x = normal<double>(2 * s.input_elements(), 2), dy = normal<double>(2 * s.output_elements(), 3);
    CHECK(error(run(*unfold_forward(s, weights.data()), s, false, 2, x.data()), reference(s, 2, weights, x, false)) <
          1e-14);
    CHECK(error(run(*unfold_input_gradient(s, weights.data()), s, true, 2, dy.data()),
                reference(s, 2, weights, dy, true)) < 1e-14);
  }
}

TEST_CASE("an image gives the same bits alone, in a batch and on any thread", "[convolution]") {
  for (const Case& c : cases())
    for (const Isa i : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (i > isa()) continue;
      check_bits<float>(c.shape, ConvolutionAlgorithm::fast, i);
      if (std::string(c.forward) == "winograd F(4x4)") check_bits<float>(c.shape, ConvolutionAlgorithm::exact, i);
      check_bits<double>(c.shape, ConvolutionAlgorithm::exact, i);
    }
}

TEST_CASE("the input gradient is the adjoint of the convolution", "[convolution]") {
  for (const Case& c : cases()) {
    const ConvolutionShape& s = c.shape;
    INFO(text(s));
    const auto check = [&](auto zero, ConvolutionAlgorithm algorithm, double tolerance) {
      using T = decltype(zero);
      const auto weights = normal<T>(s.weight_elements(), 5);
      const auto x = normal<T>(2 * s.input_elements(), 6), dy = normal<T>(2 * s.output_elements(), 7);
      const auto y = run(make(false, s, weights, algorithm), s, false, 2, x.data());
      const auto dx = run(make(true, s, weights, algorithm), s, true, 2, dy.data());
      const double scale = std::sqrt(dot(y, y) * dot(dy, dy));
      CHECK(std::abs(dot(y, dy) - dot(x, dx)) <= tolerance * scale);
    };
    check(double{}, ConvolutionAlgorithm::exact, 1e-14);
    check(float{}, ConvolutionAlgorithm::exact, 1e-6);
    check(float{}, ConvolutionAlgorithm::fast, 1e-5);
  }
}

TEST_CASE("no images, no work", "[convolution]") {
  for (const Case& c : cases()) {
    const auto weights = normal<float>(c.shape.weight_elements(), 1);
    make(false, c.shape, weights, ConvolutionAlgorithm::fast).run(0, nullptr, nullptr);
    make(true, c.shape, weights, ConvolutionAlgorithm::fast).run(0, nullptr, nullptr);
  }
}

TEST_CASE("shapes that are no convolution are refused", "[convolution]") {
  const std::vector<float> weights(1024);
  const auto refuse = [&](const ConvolutionShape& s, const char* reason) {
    INFO(text(s));
    CHECK_THROWS_WITH(PackedConvolution<float>::forward(s, weights.data(), ConvolutionAlgorithm::fast),
                      Catch::Contains(reason));
    CHECK_THROWS_WITH(PackedConvolution<float>::input_gradient(s, weights.data(), ConvolutionAlgorithm::fast),
                      Catch::Contains(reason));
  };
  refuse(shape(0, 4, 1, 1), "extents must be positive");
  refuse(shape(4, 4, 1, 1, 3, 0), "strides and dilations must be positive");
  refuse(shape(4, 4, 1, 1, 3, 1, -1), "paddings not negative");
  refuse(shape(4, 4, 3, 4, 3, 1, 1, 1, 2), "the number of groups must divide the channels");
  refuse(shape(4, 2, 1, 1, 5, 1, 1), "a 5x5 kernel of dilation 1x1 does not fit into a 4x2 image with padding 1x1");
}
