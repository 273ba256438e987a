// The weight gradient of a convolution against plain loops in float64, and the promises about bits of
// engine/cpu/weight_gradient.h.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/cpu/isa/weight_gradient.h"
#include "engine/cpu/weight_gradient.h"
#include "engine/parallel.h"
#include "worse.h"

using namespace fastntk;
using cpu::convolution_weight_gradient;

namespace {

template <class T>
std::vector<T> numbers(int64_t n, uint64_t seed) {
  std::vector<T> v(static_cast<size_t>(n));
  for (T& x : v) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    x = static_cast<T>(static_cast<double>(seed >> 11) * 0x1p-52 - 1);
  }
  return v;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Square images and kernels.
ConvolutionShape square(int64_t size, int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, int64_t padding = 0,
                        int64_t dilation = 1, int64_t groups = 1) {
  return {.height = size,
          .width = size,
          .in_channels = in,
          .out_channels = out,
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

template <class T>
struct Problem {
  ConvolutionShape s;
  int64_t images;
  std::vector<T> x = numbers<T>(images * s.input_elements(), 1), dy = numbers<T>(images * s.output_elements(), 2);
  std::vector<T> dw0 = numbers<T>(s.weight_elements(), 3);

  std::vector<T> gradient(bool accumulate) const {
    std::vector<T> dw = dw0;
    convolution_weight_gradient(s, images, x.data(), dy.data(), dw.data(), accumulate);
    return dw;
  }
  // The largest error over the bound terms * eps * sum |x dy|.
  double error(const std::vector<T>& dw, bool accumulate) const {
    const int64_t channels = s.in_channels / s.groups, outputs = s.out_channels / s.groups;
    double worst = 0;
    size_t index = 0;
    for (int64_t k = 0; k < s.out_channels; k++)
      for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < s.kernel_height; i++)
          for (int64_t j = 0; j < s.kernel_width; j++, index++) {
            double sum = accumulate ? static_cast<double>(dw0[index]) : 0, size = 1e-30 + std::abs(sum), terms = 2;
            for (int64_t n = 0; n < images; n++)
              for (int64_t u = 0; u < s.out_height(); u++)
                for (int64_t v = 0; v < s.out_width(); v++) {
                  const int64_t h = u * s.stride_height + i * s.dilation_height - s.padding_height;
                  const int64_t w = v * s.stride_width + j * s.dilation_width - s.padding_width;
                  if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
                  const double term =
                      static_cast<double>(x[static_cast<size_t>(((n * s.height + h) * s.width + w) * s.in_channels +
                                                                k / outputs * channels + c)]) *
                      static_cast<double>(
                          dy[static_cast<size_t>(((n * s.out_height() + u) * s.out_width() + v) * s.out_channels + k)]);
                  sum += term, size += std::abs(term), terms++;
                }
            const double bound = terms * static_cast<double>(std::numeric_limits<T>::epsilon()) * size;
            worst = test::worse(worst, std::abs(static_cast<double>(dw[index]) - sum) / bound);
          }
    return worst;
  }
};

struct Threads {
  explicit Threads(int n) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
  const int before = thread_count();
};

const cpu::WeightGradientKernels<float>& of(const cpu::WeightGradientTable& table, float) { return table.f32; }
const cpu::WeightGradientKernels<double>& of(const cpu::WeightGradientTable& table, double) { return table.f64; }

std::vector<std::pair<std::string, const cpu::WeightGradientTable*>> tables() {
  std::vector<std::pair<std::string, const cpu::WeightGradientTable*>> all = {
      {"baseline", &cpu::baseline::weight_gradient_table}};
#if defined(__x86_64__)
  if (cpu::isa() >= cpu::Isa::avx2) all.emplace_back("avx2", &cpu::avx2::weight_gradient_table);
  if (cpu::isa() >= cpu::Isa::avx512) all.emplace_back("avx512", &cpu::avx512::weight_gradient_table);
#endif
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("the weight gradient equals plain loops", "[weight_gradient]", float, double) {
  ConvolutionShape skew = square(9, 5, 7, 3);
  skew.height = 6, skew.kernel_width = 2, skew.stride_height = 2, skew.padding_width = 3, skew.dilation_height = 2;
  ConvolutionShape wide = square(3, 2, 3, 3, 1, 1);
  wide.width = 150;
  for (const ConvolutionShape& s : {
           square(1, 1, 1, 1),                 // one of everything
           square(28, 1, 16, 3, 1, 1),         // the stem of a ResNet on grey images
           square(13, 3, 10, 7, 2, 3),         // a large kernel on colours
           square(8, 16, 16, 3, 1, 1),         // one block of channels
           square(9, 32, 24, 3, 2, 1),         // stride 2, an odd extent
           square(5, 37, 19, 3, 1, 1),         // no channel count fits
           square(8, 40, 20, 1, 2),            // 1x1 with stride
           square(4, 64, 9, 1),                // 1x1
           square(9, 20, 6, 3, 1, 2, 2),       // dilation
           square(6, 12, 6, 3, 1, 1, 1, 3),    // groups
           square(7, 10, 10, 3, 2, 1, 1, 10),  // one channel per group
           square(2, 3, 4, 5, 3, 2),           // the kernel is larger than the image
           skew,
           wide,  // a row of more than a block of pixels
       })
    for (const bool accumulate : {false, true}) {
      const Problem<TestType> problem{s, 3};
      CAPTURE(s.height, s.width, s.in_channels, s.out_channels, s.kernel_height, s.stride_height, accumulate);
      CHECK(problem.error(problem.gradient(accumulate), accumulate) <= 1);
    }
}

TEMPLATE_TEST_CASE("the weight gradient of nothing is zero", "[weight_gradient]", float, double) {
  const ConvolutionShape s = square(3, 1, 1, 2);
  std::vector<TestType> dw(4, 5);
  convolution_weight_gradient<TestType>(s, 0, nullptr, nullptr, dw.data(), true);
  CHECK(dw == std::vector<TestType>(4, 5));
  convolution_weight_gradient<TestType>(s, 0, nullptr, nullptr, dw.data(), false);
  CHECK(dw == std::vector<TestType>(4, 0));
}

TEMPLATE_TEST_CASE("the weight gradient gives the same bits for any cut of the batch and any number of threads",
                   "[weight_gradient]", float, double) {
  // Several blocks of rows, so that an image's own sum matters; more images than are copied at a time; many tiles.
  for (const auto& [s, images] : {std::pair{square(28, 16, 16, 3, 1, 1), 30},
                                  {square(28, 1, 20, 3, 1, 1), 9},
                                  {square(4, 64, 80, 3, 1, 1), 70},
                                  {square(14, 32, 16, 1, 2), 11}}) {
    const Problem<TestType> problem{s, images};
    CAPTURE(s.height, s.in_channels, s.kernel_height);
    std::vector<std::vector<TestType>> results;
    for (const int threads : {1, 2, 3}) {
      const Threads scope(threads);
      results.push_back(problem.gradient(true));
    }
    CHECK(same_bits(results[1], results[0]));
    CHECK(same_bits(results[2], results[0]));

    for (const int64_t first : {1, 7}) {
      auto dw = problem.dw0;
      convolution_weight_gradient(s, first, problem.x.data(), problem.dy.data(), dw.data(), true);
      convolution_weight_gradient(s, images - first, problem.x.data() + first * s.input_elements(),
                                  problem.dy.data() + first * s.output_elements(), dw.data(), true);
      CHECK(same_bits(dw, results[0]));
    }
    // Image by image inside a parallel region, then added in order.
    std::vector<std::vector<TestType>> own(static_cast<size_t>(images), problem.dw0);
    parallel_for(images, [&](int64_t i) {
      convolution_weight_gradient(s, 1, problem.x.data() + i * s.input_elements(),
                                  problem.dy.data() + i * s.output_elements(), own[static_cast<size_t>(i)].data(),
                                  false);
    });
    auto sum = problem.dw0;
    for (const auto& g : own)
      for (size_t e = 0; e < sum.size(); e++) sum[e] += g[e];
    CHECK(same_bits(sum, results[0]));
  }
}

TEMPLATE_TEST_CASE("the weight gradient kernels of every instruction set", "[weight_gradient]", float, double) {
  const std::vector<int64_t> offsets = {0, 5, 9, 30, 31, 70, 2};
  const int64_t pixels = std::ssize(offsets);
  const auto x = numbers<TestType>(70 + 3 * 16, 1), dy = numbers<TestType>(pixels * 8, 2);
  for (const auto& [name, table] : tables()) {
    const auto& kernel = of(*table, TestType{});
    for (int64_t vectors = 1; vectors <= 3; vectors++) {
      const int64_t columns = vectors * kernel.lanes, stride = columns + 1;
      std::vector<TestType> out(static_cast<size_t>(kernel.rows * stride), 1);
      kernel.tile[vectors - 1](pixels, offsets.data(), x.data(), dy.data(), out.data(), stride, false);
      kernel.tile[vectors - 1](pixels, offsets.data(), x.data(), dy.data(), out.data(), stride, true);
      CAPTURE(name, vectors);
      for (int64_t r = 0; r < kernel.rows; r++)
        for (int64_t j = 0; j < stride; j++) {
          double sum = 0;
          for (int64_t p = 0; p < pixels; p++)
            if (j < columns)
              sum += 2 * static_cast<double>(dy[static_cast<size_t>(p * kernel.rows + r)]) *
                     static_cast<double>(x[static_cast<size_t>(offsets[static_cast<size_t>(p)] + j)]);
          const double expected = j < columns ? sum : 1;
          REQUIRE(std::abs(static_cast<double>(out[static_cast<size_t>(r * stride + j)]) - expected) <=
                  40 * static_cast<double>(std::numeric_limits<TestType>::epsilon()));
        }
    }
  }
}
