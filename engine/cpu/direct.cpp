#include "engine/cpu/direct.h"

#include <fmt/core.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "engine/cpu/isa/convolution.h"
#include "engine/parallel.h"
#include "engine/storage.h"

namespace fastntk::cpu {
namespace {

// With so many channels a planar copy (depth 1) still beats unfolding; more of them are not a first layer.
constexpr int64_t most_planar_channels = 4;
// Taps of an unusually large kernel are better unfolded: a patch embedding is one matrix product.
constexpr int64_t most_taps = 49;
// Bytes of scratch: less than half of an L2 of 1 MB, so that the weights of one block and the outputs pass beside it.
constexpr int64_t scratch_bytes = 400 << 10;

template <class T>
const DirectKernels<T>& kernels_of(Isa isa) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, float>)
    return isa == Isa::avx512 ? avx512::direct_float : isa == Isa::avx2 ? avx2::direct_float : baseline::direct_float;
  else
    return isa == Isa::avx512 ? avx512::direct_double
           : isa == Isa::avx2 ? avx2::direct_double
                              : baseline::direct_double;
#else
  if constexpr (std::is_same_v<T, float>)
    return baseline::direct_float;
  else
    return baseline::direct_double;
#endif
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One tap of a sum: the kernel element, and the displacement of its row and column in the bordered image.
struct Tap {
  int64_t kernel_row, kernel_column, row, column;
};

// A rectangle of output pixels that share their taps.
template <class T>
struct Phase {
  std::vector<Tap> taps;
  std::vector<int64_t> offset;
  Buffer weights;
  TapSum<T> sum{};
  int64_t out_offset = 0;
};

// weights[k / block][c / depth][tap][c % depth][k % block] out of at(k, c, tap).
template <class T, class At>
Buffer pack(int64_t out_channels, int64_t channels, int64_t depth, int64_t block, const std::vector<Tap>& taps, At at) {
  Buffer buffer(static_cast<size_t>(out_channels * channels * static_cast<int64_t>(taps.size())) * sizeof(T));
  T* to = buffer.as<T>();
  for (int64_t k0 = 0; k0 < out_channels; k0 += block)
    for (int64_t c0 = 0; c0 < channels; c0 += depth)
      for (const Tap& tap : taps)
        for (int64_t c = c0; c < c0 + depth; c++)
          for (int64_t k = k0; k < k0 + block; k++) *to++ = at(k, c, tap);
  return buffer;
}

template <class T>
class Direct : public ConvolutionKernel<T> {
 public:
  Direct(const DirectKernels<T>& kernels, std::string name) : kernels_(kernels), name_(std::move(name)) {}

  void run(int64_t images, const T* in, T* out) const override {
    // A group of images fills the scratch, but every thread gets one.
    int64_t group = std::max<int64_t>(1, scratch_bytes / static_cast<int64_t>(sizeof(T)) / source_.image_stride);
    if (!in_parallel()) group = std::min(group, std::max<int64_t>(1, ceil_div(images, thread_count())));
    parallel_ranges(images, group, [&](int64_t from, int64_t to) {
      const Buffer scratch(static_cast<size_t>((to - from) * source_.image_stride) * sizeof(T));
      kernels_.pad(source_, to - from, in + from * source_.height * source_.width * source_.channels, scratch.as<T>());
      for (const Phase<T>& phase : phases_)
        kernels_.sum(phase.sum, to - from, scratch.as<T>(), out + from * phase.sum.out_image + phase.out_offset);
    });
  }
  const char* name() const override { return name_.c_str(); }
  size_t bytes() const override {
    size_t sum = 0;
    for (const Phase<T>& phase : phases_) sum += phase.weights.bytes();
    return sum;
  }

 protected:
  int64_t block_for(int64_t out_channels) const {
    return out_channels % kernels_.wide_block == 0 ? kernels_.wide_block : channel_block;
  }
  // Sets what follows from the extents: strides of the scratch.
  void lay_out_source() {
    source_.row_stride = source_.phases * source_.columns * source_.depth;
    source_.block_stride = source_.rows * source_.row_stride;
    source_.image_stride = source_.channels / source_.depth * source_.block_stride;
  }
  // Adds a phase whose taps are known; `row_step` is the stride of output rows in the scratch.
  template <class At>
  void add_phase(Phase<T> phase, int64_t row_step, At at) {
    for (const Tap& t : phase.taps)
      phase.offset.push_back(t.row * source_.row_stride +
                             (t.column % source_.phases * source_.columns + t.column / source_.phases) * source_.depth);
    phase.weights = pack<T>(phase.sum.out_channels, source_.channels, source_.depth, block_for(phase.sum.out_channels),
                            phase.taps, at);
    phase.sum.depth = source_.depth;
    phase.sum.channel_blocks = source_.channels / source_.depth;
    phase.sum.taps = static_cast<int64_t>(phase.taps.size());
    phase.sum.row_stride = row_step * source_.row_stride;
    phase.sum.block_stride = source_.block_stride;
    phase.sum.image_stride = source_.image_stride;
    phase.sum.weights = phase.weights.template as<T>();
    phase.sum.offset = phase.offset.data();  // moving the phase moves neither this block nor the weights'
    phases_.push_back(std::move(phase));
  }

  const DirectKernels<T>& kernels_;
  PaddedImages source_{};
  std::vector<Phase<T>> phases_;

 private:
  std::string name_;
};

std::string name_of(const ConvolutionShape& s) {
  std::string name = fmt::format("direct {}x{}", s.kernel_height, s.kernel_width);
  if (s.stride_height != 1 || s.stride_width != 1)
    name += s.stride_height == s.stride_width ? fmt::format(" stride {}", s.stride_height)
                                              : fmt::format(" stride {}x{}", s.stride_height, s.stride_width);
  return name;
}

template <class T>
class DirectForward : public Direct<T> {
 public:
  DirectForward(const ConvolutionShape& s, const T* weights, Isa isa) : Direct<T>(kernels_of<T>(isa), name_of(s)) {
    const int64_t reach_height = s.dilation_height * (s.kernel_height - 1),
                  reach_width = s.dilation_width * (s.kernel_width - 1);
    PaddedImages& source = this->source_;
    source.height = s.height, source.width = s.width, source.channels = s.in_channels;
    source.depth = s.in_channels % channel_block == 0 ? channel_block : 1;
    source.top = s.padding_height, source.left = s.padding_width;
    source.phases = s.stride_width;
    source.rows = (s.out_height() - 1) * s.stride_height + reach_height + 1;
    source.columns = ceil_div((s.out_width() - 1) * s.stride_width + reach_width + 1, s.stride_width);
    this->lay_out_source();

    Phase<T> phase;
    for (int64_t i = 0; i < s.kernel_height; i++)
      for (int64_t j = 0; j < s.kernel_width; j++)
        phase.taps.push_back({i, j, i * s.dilation_height, j * s.dilation_width});
    phase.sum.rows = s.out_height(), phase.sum.columns = s.out_width(), phase.sum.out_channels = s.out_channels;
    phase.sum.out_pixel = s.out_channels;
    phase.sum.out_row = s.out_width() * s.out_channels;
    phase.sum.out_image = s.output_elements();
    this->add_phase(std::move(phase), s.stride_height, [&](int64_t k, int64_t c, const Tap& t) {
      return weights[((k * s.in_channels + c) * s.kernel_height + t.kernel_row) * s.kernel_width + t.kernel_column];
    });
  }
};

// dx[h, w] = sum of weights[i, j] * dy[(h + padding - i * dilation) / stride, ...] over the (i, j) for which the
// division is exact: these depend on h and w modulo the stride only.
template <class T>
class DirectInputGradient : public Direct<T> {
 public:
  DirectInputGradient(const ConvolutionShape& s, const T* weights, Isa isa)
      : Direct<T>(kernels_of<T>(isa), name_of(s)) {
    PaddedImages& source = this->source_;
    source.height = s.out_height(), source.width = s.out_width(), source.channels = s.out_channels;
    source.depth = channel_block, source.phases = 1;
    std::vector<Phase<T>> phases;
    int64_t bottom = 1, right = 1;
    for (int64_t a = 0; a < std::min(s.stride_height, s.height); a++)
      for (int64_t b = 0; b < std::min(s.stride_width, s.width); b++) {
        Phase<T>& phase = phases.emplace_back();
        phase.sum.rows = ceil_div(s.height - a, s.stride_height),
        phase.sum.columns = ceil_div(s.width - b, s.stride_width);
        phase.sum.out_channels = s.in_channels;
        phase.sum.out_pixel = s.stride_width * s.in_channels;
        phase.sum.out_row = s.stride_height * s.width * s.in_channels;
        phase.sum.out_image = s.input_elements();
        phase.out_offset = (a * s.width + b) * s.in_channels;
        for (int64_t i = 0; i < s.kernel_height; i++)
          for (int64_t j = 0; j < s.kernel_width; j++) {
            const int64_t h = a + s.padding_height - i * s.dilation_height,
                          w = b + s.padding_width - j * s.dilation_width;
            if (h % s.stride_height != 0 || w % s.stride_width != 0) continue;
            const Tap tap{i, j, h / s.stride_height, w / s.stride_width};
            source.top = std::max(source.top, -tap.row), source.left = std::max(source.left, -tap.column);
            bottom = std::max(bottom, tap.row + phase.sum.rows),
            right = std::max(right, tap.column + phase.sum.columns);
            phase.taps.push_back(tap);
          }
      }
    source.rows = source.top + bottom, source.columns = source.left + right;
    this->lay_out_source();
    for (Phase<T>& phase : phases) {
      for (Tap& tap : phase.taps) tap.row += source.top, tap.column += source.left;
      this->add_phase(std::move(phase), 1, [&](int64_t c, int64_t k, const Tap& t) {
        return weights[((k * s.in_channels + c) * s.kernel_height + t.kernel_row) * s.kernel_width + t.kernel_column];
      });
    }
  }
};

}  // namespace

bool direct_forward_takes(const ConvolutionShape& s) {
  return s.groups == 1 && s.out_channels % channel_block == 0 && s.kernel_height * s.kernel_width <= most_taps &&
         (s.in_channels % channel_block == 0 || s.in_channels <= most_planar_channels);
}
bool direct_input_gradient_takes(const ConvolutionShape& s) {
  return s.groups == 1 && s.out_channels % channel_block == 0 && s.in_channels % channel_block == 0 &&
         s.kernel_height * s.kernel_width <= most_taps;
}

template <class T>
std::shared_ptr<const ConvolutionKernel<T>> direct_forward(const ConvolutionShape& shape, const T* weights, Isa isa) {
  return std::make_shared<const DirectForward<T>>(shape, weights, isa);
}
template <class T>
std::shared_ptr<const ConvolutionKernel<T>> direct_input_gradient(const ConvolutionShape& shape, const T* weights,
                                                                  Isa isa) {
  return std::make_shared<const DirectInputGradient<T>>(shape, weights, isa);
}

template std::shared_ptr<const ConvolutionKernel<float>> direct_forward(const ConvolutionShape&, const float*, Isa);
template std::shared_ptr<const ConvolutionKernel<double>> direct_forward(const ConvolutionShape&, const double*, Isa);
template std::shared_ptr<const ConvolutionKernel<float>> direct_input_gradient(const ConvolutionShape&, const float*,
                                                                               Isa);
template std::shared_ptr<const ConvolutionKernel<double>> direct_input_gradient(const ConvolutionShape&, const double*,
                                                                                Isa);

}  // namespace fastntk::cpu
