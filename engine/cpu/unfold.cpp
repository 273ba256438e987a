#include "engine/cpu/unfold.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/cpu/gemm.h"
#include "engine/parallel.h"
#include "engine/storage.h"

namespace fastntk::cpu {
namespace {

// Bytes of patches that are unfolded before they are multiplied: they are to be still in L2.
constexpr int64_t patch_bytes = 256 << 10;

template <class T>
int64_t rows_of(int64_t columns) {
  return std::clamp<int64_t>(patch_bytes / static_cast<int64_t>(sizeof(T)) / columns, 16, 4096);
}

// The right operands, one per group. Rows of the unfolded matrix are ordered (kernel row, kernel column, input
// channel). forward: [taps * C / g, K / g]; its transpose serves the input gradient.
template <class T>
std::vector<PackedMatrix<T>> pack_groups(const ConvolutionShape& s, const T* weights, bool transposed) {
  const int64_t C = s.in_channels / s.groups, K = s.out_channels / s.groups, taps = s.kernel_height * s.kernel_width;
  std::vector<T> rows(static_cast<size_t>(K * taps * C));  // [k][tap][c]
  std::vector<PackedMatrix<T>> packed;
  for (int64_t g = 0; g < s.groups; g++, weights += K * C * taps) {
    for (int64_t k = 0; k < K; k++)
      for (int64_t c = 0; c < C; c++)
        for (int64_t t = 0; t < taps; t++)
          rows[static_cast<size_t>((k * taps + t) * C + c)] = weights[(k * C + c) * taps + t];
    if (transposed)
      packed.emplace_back(false, K, taps * C, rows.data(), taps * C);
    else
      packed.emplace_back(true, taps * C, K, rows.data(), taps * C);
  }
  return packed;
}

template <class T>
size_t bytes_of(const std::vector<PackedMatrix<T>>& matrices) {
  size_t sum = 0;
  for (const auto& m : matrices) sum += static_cast<size_t>(m.rows() * m.columns()) * sizeof(T);
  return sum;
}

// The pixels under one row of the kernel: elements [begin, end) of the patch's row come from the image at `from`, the
// others lie on the border. Without dilation and groups one run covers the whole kernel row.
struct Run {
  int64_t length, begin, end, from;
};

// Calls body(position in the patch, Run) for every run of the patch of output pixel (oh, ow), group g.
template <class Body>
void for_runs(const ConvolutionShape& s, int64_t g, int64_t oh, int64_t ow, Body body) {
  const int64_t C = s.in_channels, channels = C / s.groups;
  const bool whole_rows = s.dilation_width == 1 && s.groups == 1;
  const int64_t pixels = whole_rows ? s.kernel_width : 1, length = pixels * channels;
  int64_t position = 0;
  for (int64_t i = 0; i < s.kernel_height; i++) {
    const int64_t h = oh * s.stride_height - s.padding_height + i * s.dilation_height;
    for (int64_t j = 0; j < s.kernel_width; j += pixels, position += length) {
      const int64_t w = ow * s.stride_width - s.padding_width + j * s.dilation_width;
      const int64_t first = std::clamp<int64_t>(-w, 0, pixels);
      const int64_t last = h < 0 || h >= s.height ? first : std::clamp<int64_t>(s.width - w, first, pixels);
      body(position, Run{length, first * channels, last * channels, (h * s.width + w + first) * C + g * channels});
    }
  }
}

template <class T>
class UnfoldForward : public ConvolutionKernel<T> {
 public:
  UnfoldForward(const ConvolutionShape& s, const T* weights) : shape_(s), groups_(pack_groups(s, weights, false)) {}

  void run(int64_t images, const T* in, T* out) const override {
    const ConvolutionShape& s = shape_;
    const int64_t pixels = s.out_height() * s.out_width(), width = s.out_width(), K = s.out_channels;
    const int64_t columns = s.kernel_height * s.kernel_width * (s.in_channels / s.groups);
    parallel_ranges(images * pixels, rows_of<T>(columns), [&](int64_t from, int64_t to) {
      const Buffer patches(static_cast<size_t>((to - from) * columns) * sizeof(T));
      for (int64_t g = 0; g < s.groups; g++) {
        T* row = patches.as<T>();
        for (int64_t p = from; p < to; p++, row += columns) {
          const T* const image = in + p / pixels * s.input_elements();
          for_runs(s, g, p % pixels / width, p % width, [&](int64_t position, const Run& r) {
            T* const to_run = row + position;
            std::fill_n(to_run, r.begin, T{0});
            if (r.end > r.begin)
              std::memcpy(to_run + r.begin, image + r.from, static_cast<size_t>(r.end - r.begin) * sizeof(T));
            std::fill(to_run + r.end, to_run + r.length, T{0});
          });
        }
        groups_[static_cast<size_t>(g)].multiply(to - from, patches.as<T>(), columns,
                                                 out + from * K + g * (K / s.groups), K);
      }
    });
  }
  const char* name() const override { return "unfold"; }
  size_t bytes() const override { return bytes_of(groups_); }

 private:
  ConvolutionShape shape_;
  std::vector<PackedMatrix<T>> groups_;
};

template <class T>
class UnfoldInputGradient : public ConvolutionKernel<T> {
 public:
  UnfoldInputGradient(const ConvolutionShape& s, const T* weights)
      : shape_(s), groups_(pack_groups(s, weights, true)) {}

  // Every element of dx receives at most one term from each output pixel, in the order of the output pixels; so how
  // many of them are multiplied at a time changes nothing.
  void run(int64_t images, const T* in, T* out) const override {
    const ConvolutionShape& s = shape_;
    const int64_t pixels = s.out_height() * s.out_width(), width = s.out_width(), K = s.out_channels;
    const int64_t columns = s.kernel_height * s.kernel_width * (s.in_channels / s.groups), rows = rows_of<T>(columns);
    parallel_for(images, [&](int64_t n) {
      const Buffer patches(static_cast<size_t>(std::min(rows, pixels) * columns) * sizeof(T));
      const T* const dy = in + n * s.output_elements();
      T* const dx = out + n * s.input_elements();
      std::fill_n(dx, s.input_elements(), T{0});
      for (int64_t from = 0; from < pixels; from += rows) {
        const int64_t to = std::min(pixels, from + rows);
        for (int64_t g = 0; g < s.groups; g++) {
          const T* row = patches.as<T>();
          groups_[static_cast<size_t>(g)].multiply(to - from, dy + from * K + g * (K / s.groups), K, patches.as<T>(),
                                                   columns);
          for (int64_t p = from; p < to; p++, row += columns)
            for_runs(s, g, p / width, p % width, [&](int64_t position, const Run& r) {
              const T* const patch = row + position + r.begin;
              T* const pixel = dx + r.from;
              for (int64_t i = 0; i < r.end - r.begin; i++) pixel[i] += patch[i];
            });
        }
      }
    });
  }
  const char* name() const override { return "unfold"; }
  size_t bytes() const override { return bytes_of(groups_); }

 private:
  ConvolutionShape shape_;
  std::vector<PackedMatrix<T>> groups_;
};

// Pixels of the larger image that a stride visits are rows of the product; the smaller image has no others.
template <class T>
class Pointwise : public ConvolutionKernel<T> {
 public:
  Pointwise(const ConvolutionShape& s, const T* weights, bool gradient)
      : shape_(s),
        gradient_(gradient),
        matrix_(gradient ? PackedMatrix<T>(false, s.out_channels, s.in_channels, weights, s.in_channels)
                         : PackedMatrix<T>(true, s.in_channels, s.out_channels, weights, s.in_channels)) {}

  void run(int64_t images, const T* in, T* out) const override {
    const ConvolutionShape& s = shape_;
    const int64_t C = s.in_channels, K = s.out_channels, pixels = s.out_height() * s.out_width();
    const bool adjacent = s.stride_height == 1 && s.stride_width == 1;
    if (gradient_ && !adjacent)
      parallel_for(images, [&](int64_t n) { std::fill_n(out + n * s.input_elements(), s.input_elements(), T{0}); });
    parallel_ranges(images * pixels, rows_of<T>(C), [&](int64_t from, int64_t to) {
      if (adjacent) {
        if (gradient_)
          matrix_.multiply(to - from, in + from * K, K, out + from * C, C);
        else
          matrix_.multiply(to - from, in + from * C, C, out + from * K, K);
        return;
      }
      const Buffer visited(static_cast<size_t>((to - from) * C) * sizeof(T));
      T* const rows = visited.as<T>();
      const size_t row_bytes = static_cast<size_t>(C) * sizeof(T);
      if (gradient_) {
        matrix_.multiply(to - from, in + from * K, K, rows, C);
        for (int64_t p = from; p < to; p++) std::memcpy(out + visited_pixel(p) * C, rows + (p - from) * C, row_bytes);
      } else {
        for (int64_t p = from; p < to; p++) std::memcpy(rows + (p - from) * C, in + visited_pixel(p) * C, row_bytes);
        matrix_.multiply(to - from, rows, C, out + from * K, K);
      }
    });
  }
  const char* name() const override { return "pointwise"; }
  size_t bytes() const override { return static_cast<size_t>(matrix_.rows() * matrix_.columns()) * sizeof(T); }

 private:
  // The pixel of the larger images under output pixel p, both counted over all images.
  int64_t visited_pixel(int64_t p) const {
    const int64_t width = shape_.out_width(), pixels = shape_.out_height() * width;
    const int64_t h = p % pixels / width * shape_.stride_height, w = p % width * shape_.stride_width;
    return p / pixels * shape_.height * shape_.width + h * shape_.width + w;
  }
  ConvolutionShape shape_;
  bool gradient_;
  PackedMatrix<T> matrix_;
};

}  // namespace

bool is_pointwise(const ConvolutionShape& s) {
  return s.kernel_height == 1 && s.kernel_width == 1 && s.padding_height == 0 && s.padding_width == 0 && s.groups == 1;
}
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> unfold_forward(const ConvolutionShape& s, const T* weights) {
  return std::make_shared<const UnfoldForward<T>>(s, weights);
}
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> unfold_input_gradient(const ConvolutionShape& s, const T* weights) {
  return std::make_shared<const UnfoldInputGradient<T>>(s, weights);
}
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> pointwise_forward(const ConvolutionShape& s, const T* weights) {
  return std::make_shared<const Pointwise<T>>(s, weights, false);
}
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> pointwise_input_gradient(const ConvolutionShape& s, const T* weights) {
  return std::make_shared<const Pointwise<T>>(s, weights, true);
}
#define FASTNTK_INSTANTIATE(FUNCTION)                                                                       \
  template std::shared_ptr<const ConvolutionKernel<float>> FUNCTION(const ConvolutionShape&, const float*); \
  template std::shared_ptr<const ConvolutionKernel<double>> FUNCTION(const ConvolutionShape&, const double*);
FASTNTK_INSTANTIATE(unfold_forward)
FASTNTK_INSTANTIATE(unfold_input_gradient)
FASTNTK_INSTANTIATE(pointwise_forward)
FASTNTK_INSTANTIATE(pointwise_input_gradient)
#undef FASTNTK_INSTANTIATE

}  // namespace fastntk::cpu
