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

// G g G^T of one 3x3 kernel.
void transform_weights(const double (&g)[3][3], double (&u)[6][6]) {
  constexpr double G[6][3] = {{1. / 4, 0, 0},          {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                              {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6},   {0, 0, 1}};
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < 6; j++) {
      u[i][j] = 0;
      for (int r = 0; r < 3; r++)
        for (int c = 0; c < 3; c++) u[i][j] += G[i][r] * g[r][c] * G[j][c];
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
    parallel_for(K / block, [&](int64_t b) {
      for (int64_t k = b * block; k < (b + 1) * block; k++)
        for (int64_t c = 0; c < C; c++) {
          double g[3][3], transformed[6][6];
          for (int r = 0; r < 3; r++)
            for (int s = 0; s < 3; s++) g[r][s] = static_cast<double>(at(k, c, r, s));
          transform_weights(g, transformed);
          for (int64_t e = 0; e < products; e++)
            u[((e * (K / block) + b) * C + c) * block + k % block] = static_cast<float>(transformed[e / 6][e % 6]);
        }
    });
    shape_.weights = u;
    shape_.zeros = zeros_.as<float>();
  }

  void run(int64_t images, const float* in, float* out) const override {
    const int64_t tiles = images * shape_.tile_rows * shape_.tile_columns;
    WinogradTiles q = shape_;
    // Measured: the weights of a large layer are read from L3, and are better used twice.
    q.capacity = q.in_channels * q.out_channels >= 128 * 128 ? 56 : 28;
    if (!in_parallel()) q.capacity = std::min(q.capacity, std::max<int64_t>(1, ceil_div(tiles, thread_count())));
    // 16 more: the 36 streams of a transform must not lie at a power-of-two distance, in the same cache sets.
    q.input_stride = q.capacity * q.in_channels + 16;
    q.product_stride = q.capacity * q.out_channels + 16;
    parallel_ranges(tiles, q.capacity * blocks_per_item, [&](int64_t from, int64_t to) {
      const Buffer scratch(static_cast<size_t>(products * (q.input_stride + q.product_stride)) * sizeof(float));
      for (int64_t t = from; t < to; t += q.capacity)
        kernels_.tiles(q, t, std::min(q.capacity, to - t), in, out, scratch.as<float>());
    });
  }
  const char* name() const override { return "winograd F(4x4)"; }
  size_t bytes() const override { return weights_.bytes() + zeros_.bytes(); }

 private:
  static constexpr int64_t blocks_per_item = 8;
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

bool winograd_pays(const ConvolutionShape& s) {
  if (s.kernel_height != 3 || s.kernel_width != 3 || s.stride_height != 1 || s.stride_width != 1 || s.dilation_height != 1 ||
      s.dilation_width != 1 || s.padding_height > 2 || s.padding_width > 2 || s.groups != 1 ||
      s.in_channels % channel_block != 0 || s.out_channels % channel_block != 0)
    return false;
  const int64_t tiles = ceil_div(s.out_height(), side) * ceil_div(s.out_width(), side);
  return 4 * products * tiles <= 3 * 9 * s.out_height() * s.out_width();
}

std::shared_ptr<const ConvolutionKernel<float>> winograd_forward(const ConvolutionShape& s, const float* weights, Isa isa) {
  const WinogradTiles q = tiles_of(s.height, s.width, s.in_channels, s.out_height(), s.out_width(), s.out_channels,
                                   s.padding_height, s.padding_width);
  return std::make_shared<const Winograd>(
      q, isa, [&](int64_t k, int64_t c, int r, int t) { return weights[(k * s.in_channels + c) * 9 + r * 3 + t]; });
}

// The input gradient is the convolution of dy with the kernel turned by 180 degrees.
std::shared_ptr<const ConvolutionKernel<float>> winograd_input_gradient(const ConvolutionShape& s, const float* weights, Isa isa) {
  const WinogradTiles q = tiles_of(s.out_height(), s.out_width(), s.out_channels, s.height, s.width, s.in_channels,
                                   2 - s.padding_height, 2 - s.padding_width);
  return std::make_shared<const Winograd>(
      q, isa, [&](int64_t c, int64_t k, int r, int t) { return weights[(k * s.in_channels + c) * 9 + 8 - (r * 3 + t)]; });
}

}  // namespace fastntk::cpu
