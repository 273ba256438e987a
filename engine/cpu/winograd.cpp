#include "engine/cpu/winograd.h"

#include <algorithm>

#include "engine/cpu/isa/convolution.h"
#include "engine/parallel.h"
#include "engine/storage.h"

namespace fastntk::cpu {
namespace {

constexpr int64_t side = 4, products = 36;

const WinogradKernels& kernels_of(Isa isa) {
#if defined(__x86_64__)
  return isa == Isa::avx512 ? avx512::winograd : isa == Isa::avx2 ? avx2::winograd : baseline::winograd;
#else
  return baseline::winograd;
#endif
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// G g, the weight transform of one line, for 16 output channels at a time (the innermost loop, so that it is
// vectorised).
using Lanes = double[channel_block];
void transform_line(const Lanes& g0, const Lanes& g1, const Lanes& g2, Lanes (&u)[6]) {
  for (int64_t k = 0; k < channel_block; k++) {
    const double even = (g0[k] + g2[k]) / 6, odd = g1[k] / 6, outer = (g0[k] + 4 * g2[k]) / 24, inner = g1[k] / 12;
    u[0][k] = g0[k] / 4;
    u[1][k] = -even - odd;
    u[2][k] = -even + odd;
    u[3][k] = outer + inner;
    u[4][k] = outer - inner;
    u[5][k] = g2[k];
  }
}

class Winograd : public ConvolutionKernel<float> {
 public:
  // at(k, c, r, s): the weight of output channel k and input channel c.
  template <class At>
  Winograd(const WinogradTiles& shape, Isa isa, At at) : kernels_(kernels_of(isa)), shape_(shape) {
    const int64_t C = shape.in_channels, K = shape.out_channels;
    const int64_t block = K % kernels_.wide_block == 0 ? kernels_.wide_block : channel_block;
    weights_ = Buffer(static_cast<size_t>(products * C * K) * sizeof(float));
    zeros_ = Buffer(static_cast<size_t>(6 * C) * sizeof(float));
    std::fill_n(zeros_.as<float>(), 6 * C, 0.0F);
    float* const u = weights_.as<float>();
    parallel_for(K / channel_block, [&](int64_t b) {
      const int64_t k0 = b * channel_block;
      for (int64_t c = 0; c < C; c++) {
        Lanes g[3][3], half[3][6], transformed[6];  // half[s][i] = (G g)[i][s]
        for (int r = 0; r < 3; r++)
          for (int s = 0; s < 3; s++)
            for (int64_t k = 0; k < channel_block; k++) g[r][s][k] = static_cast<double>(at(k0 + k, c, r, s));
        for (int s = 0; s < 3; s++) transform_line(g[0][s], g[1][s], g[2][s], half[s]);
        for (int64_t i = 0; i < 6; i++) {
          transform_line(half[0][i], half[1][i], half[2][i], transformed);
          for (int64_t j = 0; j < 6; j++) {
            float* const to = u + ((i * 6 + j) * (K / block) + k0 / block) * C * block + c * block + k0 % block;
            for (int64_t k = 0; k < channel_block; k++) to[k] = static_cast<float>(transformed[j][k]);
          }
        }
      }
    });
    shape_.weights = u;
    shape_.zeros = zeros_.as<float>();
  }

  void run(int64_t images, const float* in, float* out) const override {
    const int64_t tiles = images * shape_.tile_rows * shape_.tile_columns;
    if (tiles == 0) return;
    const int64_t threads = in_parallel() ? 1 : thread_count();
    WinogradTiles q = shape_;
    // Measured: the weights of a large layer are read from L3, and are better used twice.
    q.capacity = std::min<int64_t>(q.in_channels * q.out_channels >= 128 * 128 ? 56 : 28, ceil_div(tiles, threads));
    // 16 more: the 36 streams of a transform must not lie at a power-of-two distance, in the same cache sets.
    q.input_stride = q.capacity * q.in_channels + 16;
    q.product_stride = q.capacity * q.out_channels + 16;
    // Several blocks share a scratch; some items for each thread even out their work.
    const int64_t blocks = ceil_div(tiles, q.capacity), items = std::min(blocks, threads == 1 ? 1 : 4 * threads);
    parallel_ranges(tiles, ceil_div(blocks, items) * q.capacity, [&](int64_t from, int64_t to) {
      const Buffer scratch(static_cast<size_t>(products * (q.input_stride + q.product_stride)) * sizeof(float));
      for (int64_t t = from; t < to; t += q.capacity)
        kernels_.tiles(q, t, std::min(q.capacity, to - t), in, out, scratch.as<float>());
    });
  }
  const char* name() const override { return "winograd F(4x4)"; }
  size_t bytes() const override { return weights_.bytes() + zeros_.bytes(); }

 private:
  const WinogradKernels& kernels_;
  WinogradTiles shape_;
  Buffer weights_, zeros_;
};

WinogradTiles tiles_of(int64_t height, int64_t width, int64_t in_channels, int64_t out_height, int64_t out_width,
                       int64_t out_channels, int64_t top, int64_t left) {
  WinogradTiles q{};
  q.height = height, q.width = width, q.in_channels = in_channels;
  q.out_height = out_height, q.out_width = out_width, q.out_channels = out_channels;
  q.top = top, q.left = left;
  q.tile_rows = ceil_div(out_height, side), q.tile_columns = ceil_div(out_width, side);
  return q;
}

}  // namespace

constexpr int64_t largest_transform = 6 << 20;  // bytes

bool winograd_pays(const ConvolutionShape& s) {
  if (s.kernel_height != 3 || s.kernel_width != 3 || s.stride_height != 1 || s.stride_width != 1 ||
      s.dilation_height != 1 || s.dilation_width != 1 || s.padding_height > 2 || s.padding_width > 2 || s.groups != 1 ||
      s.in_channels % channel_block != 0 || s.out_channels % channel_block != 0)
    return false;
  // The transformed weights are four times the weights. Where images are small they are read again for every few tiles,
  // and beyond this size that costs more time and memory than the multiplications saved.
  if (s.in_channels * s.out_channels * products * static_cast<int64_t>(sizeof(float)) > largest_transform) return false;
  const int64_t tiles = ceil_div(s.out_height(), side) * ceil_div(s.out_width(), side);
  return 4 * products * tiles <= 3 * 9 * s.out_height() * s.out_width();
}

std::shared_ptr<const ConvolutionKernel<float>> winograd_forward(const ConvolutionShape& s, const float* weights,
                                                                 Isa isa) {
  const WinogradTiles q = tiles_of(s.height, s.width, s.in_channels, s.out_height(), s.out_width(), s.out_channels,
                                   s.padding_height, s.padding_width);
  return std::make_shared<const Winograd>(
      q, isa, [&](int64_t k, int64_t c, int r, int t) { return weights[(k * s.in_channels + c) * 9 + r * 3 + t]; });
}

// The input gradient is the convolution of dy with the kernel turned by 180 degrees.
std::shared_ptr<const ConvolutionKernel<float>> winograd_input_gradient(const ConvolutionShape& s, const float* weights,
                                                                        Isa isa) {
  const WinogradTiles q = tiles_of(s.out_height(), s.out_width(), s.out_channels, s.height, s.width, s.in_channels,
                                   2 - s.padding_height, 2 - s.padding_width);
  return std::make_shared<const Winograd>(q, isa, [&](int64_t c, int64_t k, int r, int t) {
    return weights[(k * s.in_channels + c) * 9 + 8 - (r * 3 + t)];
  });
}

}  // namespace fastntk::cpu
