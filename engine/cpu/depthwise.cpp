#include "engine/cpu/depthwise.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "engine/cpu/isa/depthwise.h"
#include "engine/parallel.h"

namespace fastntk::cpu {
namespace {

// Gradients of single images kept at a time, in bytes.
constexpr int64_t own_sums_bytes = int64_t{4} << 20;

template <class T>
const DepthwiseKernels<T>& kernels_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  const DepthwiseTable& table = isa == Isa::avx512 ? avx512::depthwise_table
                                : isa == Isa::avx2 ? avx2::depthwise_table
                                                   : baseline::depthwise_table;
#else
  const DepthwiseTable& table = baseline::depthwise_table;
#endif
  if constexpr (std::is_same_v<T, float>)
    return table.f32;
  else
    return table.f64;
}

// One axis of a convolution.
struct Axis {
  int64_t extent, out_extent, kernel, stride, padding, dilation;
};
Axis rows_of(const ConvolutionShape& s) {
  return {s.height, s.out_height(), s.kernel_height, s.stride_height, s.padding_height, s.dilation_height};
}
Axis columns_of(const ConvolutionShape& s) {
  return {s.width, s.out_width(), s.kernel_width, s.stride_width, s.padding_width, s.dilation_width};
}

// For every position of the result along an axis, the taps that reach it; those of position p are
// taps[first[p]] … taps[first[p + 1] − 1], in ascending order of the kernel.
struct Taps {
  std::vector<DepthwiseTap> taps;
  std::vector<int64_t> first{0};

  // The result is the output (forward) or the input (gradient). A step along the axis is `image` elements of what is
  // read, and `weight` of the weights.
  Taps(const Axis& a, bool gradient, int64_t image, int64_t weight) {
    for (int64_t p = 0; p < (gradient ? a.extent : a.out_extent); p++) {
      for (int64_t k = 0; k < a.kernel; k++) {
        const int64_t at = gradient ? p + a.padding - k * a.dilation : p * a.stride - a.padding + k * a.dilation;
        if (gradient ? at >= 0 && at % a.stride == 0 && at / a.stride < a.out_extent : at >= 0 && at < a.extent)
          taps.push_back({(gradient ? at / a.stride : at) * image, k * weight});
      }
      first.push_back(static_cast<int64_t>(taps.size()));
    }
  }
  int64_t positions() const { return static_cast<int64_t>(first.size()) - 1; }
  const DepthwiseTap* at(int64_t p) const { return taps.data() + first[static_cast<size_t>(p)]; }
  int64_t count(int64_t p) const { return first[static_cast<size_t>(p) + 1] - first[static_cast<size_t>(p)]; }
};

// Forward and input gradient alike: every pixel of the result gathers what reaches it.
template <class T>
class Depthwise : public ConvolutionKernel<T> {
 public:
  Depthwise(const ConvolutionShape& s, const T* weights, bool gradient, Isa isa)
      : kernels_(kernels_of<T>(isa)),
        channels_(s.in_channels),
        in_image_(gradient ? s.output_elements() : s.input_elements()),
        rows_(rows_of(s), gradient, (gradient ? s.out_width() : s.width) * channels_, s.kernel_width * channels_),
        columns_(columns_of(s), gradient, channels_, channels_),
        weights_(static_cast<size_t>(s.weight_elements())) {
    const int64_t taps = s.kernel_height * s.kernel_width;
    for (int64_t c = 0; c < channels_; c++)
      for (int64_t t = 0; t < taps; t++) weights_[static_cast<size_t>(t * channels_ + c)] = weights[c * taps + t];
  }

  void run(int64_t images, const T* in, T* out) const override {
    const int64_t height = rows_.positions(), width = columns_.positions();
    const auto work = static_cast<int64_t>(weights_.size()) * width;
    parallel_ranges(images * height, std::max<int64_t>(1, (int64_t{1} << 16) / work), [&](int64_t from, int64_t to) {
      for (int64_t row = from; row < to; row++) {
        const T* const image = in + row / height * in_image_;
        const int64_t p = row % height;
        for (int64_t q = 0; q < width; q++)
          kernels_.sum(rows_.count(p), rows_.at(p), columns_.count(q), columns_.at(q), channels_, image,
                       weights_.data(), out + (row * width + q) * channels_);
      }
    });
  }
  const char* name() const override { return "depthwise"; }
  size_t bytes() const override { return weights_.size() * sizeof(T); }

 private:
  const DepthwiseKernels<T>& kernels_;
  int64_t channels_, in_image_;
  Taps rows_, columns_;
  std::vector<T> weights_;  // [tap][channel]
};

// Output positions [from, to) whose tap k lies in the image.
struct Inside {
  int64_t from, to;
  Inside(const Axis& a, int64_t k) {
    const int64_t shift = a.padding - k * a.dilation;  // position o reads o · stride − shift
    from = shift <= 0 ? 0 : (shift + a.stride - 1) / a.stride;
    const int64_t last = a.extent - 1 + shift;
    to = last < 0 ? 0 : std::min(a.out_extent, last / a.stride + 1);
    from = std::min(from, to);
  }
};

// The gradient of one image, [tap][channel], added to `sum`.
template <class T>
void add_image(const ConvolutionShape& s, const DepthwiseKernels<T>& kernels, const T* x, const T* dy, T* sum) {
  const int64_t C = s.in_channels, width = s.out_width();
  const Axis rows = rows_of(s), columns = columns_of(s);
  for (int64_t u = 0; u < s.out_height(); u++)
    for (int64_t i = 0; i < s.kernel_height; i++) {
      const int64_t h = u * s.stride_height - s.padding_height + i * s.dilation_height;
      if (h < 0 || h >= rows.extent) continue;
      for (int64_t j = 0; j < s.kernel_width; j++) {
        const Inside v(columns, j);
        const int64_t w = v.from * s.stride_width - s.padding_width + j * s.dilation_width;
        if (v.from < v.to)
          kernels.dot(v.to - v.from, x + (h * s.width + w) * C, s.stride_width * C, dy + (u * width + v.from) * C, C, C,
                      sum + (i * s.kernel_width + j) * C);
      }
    }
}

}  // namespace

bool is_depthwise(const ConvolutionShape& s) {
  return s.groups > 1 && s.groups == s.in_channels && s.groups == s.out_channels;
}

template <class T>
std::shared_ptr<const ConvolutionKernel<T>> depthwise_forward(const ConvolutionShape& s, const T* weights, Isa isa) {
  return std::make_shared<const Depthwise<T>>(s, weights, false, isa);
}
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> depthwise_input_gradient(const ConvolutionShape& s, const T* weights,
                                                                     Isa isa) {
  return std::make_shared<const Depthwise<T>>(s, weights, true, isa);
}

template <class T>
void depthwise_weight_gradient(const ConvolutionShape& s, int64_t images, const T* x, const T* dy, T* dw,
                               bool accumulate) {
  const int64_t elements = s.weight_elements(), taps = s.kernel_height * s.kernel_width, C = s.in_channels;
  const DepthwiseKernels<T>& kernels = kernels_of<T>(isa());
  const int64_t most = std::max<int64_t>(1, own_sums_bytes / (elements * static_cast<int64_t>(sizeof(T))));
  const int64_t group = std::min(images, most);
  std::vector<T> own(static_cast<size_t>(group * elements));
  for (int64_t first = 0; first < images; first += group) {
    const int64_t count = std::min(group, images - first);
    std::fill(own.begin(), own.end(), T{});
    parallel_for(count, [&](int64_t n) {
      add_image(s, kernels, x + (first + n) * s.input_elements(), dy + (first + n) * s.output_elements(),
                own.data() + n * elements);
    });
    for (int64_t n = 0; n < count; n++, accumulate = true) {
      const T* const sum = own.data() + n * elements;
      for (int64_t c = 0; c < C; c++)
        for (int64_t t = 0; t < taps; t++)
          dw[c * taps + t] = accumulate ? dw[c * taps + t] + sum[t * C + c] : sum[t * C + c];
    }
  }
}

#define FASTNTK_INSTANTIATE(T)                                                                                     \
  template std::shared_ptr<const ConvolutionKernel<T>> depthwise_forward(const ConvolutionShape&, const T*, Isa);  \
  template std::shared_ptr<const ConvolutionKernel<T>> depthwise_input_gradient(const ConvolutionShape&, const T*, \
                                                                                Isa);                              \
  template void depthwise_weight_gradient(const ConvolutionShape&, int64_t, const T*, const T*, T*, bool);
FASTNTK_INSTANTIATE(float)
FASTNTK_INSTANTIATE(double)
#undef FASTNTK_INSTANTIATE

}  // namespace fastntk::cpu
