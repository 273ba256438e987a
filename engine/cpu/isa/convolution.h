// What the convolution kernels compiled once per instruction set are given, and their tables.
// Plain data only: an inline function here could be kept by the linker in its AVX-512 copy (cmake/isa.cmake).
#pragma once
#include <cstdint>

#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

/// Channels that lie together in the scratch of the direct convolution and in the transformed tiles of Winograd; the
/// channel counts that these kernels take are multiples of it.
constexpr int64_t channel_block = 16;

/// A group of images copied into a scratch with a border of zeros:
///   scratch[image][channels / depth][rows][phases][columns][depth],
/// depth = channel_block, or 1 for the few channels of a first layer. Column w of the bordered image is at phase w %
/// phases, position w / phases, so that neighbouring outputs of a strided convolution read neighbouring columns.
struct PaddedImages {
  int64_t height, width, channels;  // of one image outside, [height, width, channels]
  int64_t depth;
  int64_t top, left;  // rows and columns of zeros before the image
  int64_t rows, columns, phases;
  int64_t row_stride, block_stride, image_stride;  // of the scratch
};

/// A sum over taps out of such a scratch, for a rectangle of output pixels and all the output channels of each image:
///   out[image][row][column][k] = sum over channel block b, tap t, channel d (in this order) of
///     scratch[image * image_stride + b * block_stride + row * row_stride + column * depth + offset[t] + d]
///     * weights[k / block][b][t][d][k % block].
/// A strided input gradient is several of them, one for each parity of the output pixels.
template <class T>
struct TapSum {
  int64_t rows, columns, out_channels;
  int64_t depth, channel_blocks, taps;
  const int64_t* offset;                           // [taps]
  int64_t row_stride, block_stride, image_stride;  // of the scratch
  int64_t out_row, out_pixel, out_image;           // strides of out; the channels of one pixel are adjacent
  const T* weights;
};

template <class T>
struct DirectKernels {
  /// Output channels of one block of weights: `wide_block` when it divides their number, else channel_block.
  int64_t wide_block;
  /// Fills the scratch, border included, from in[images, height, width, channels].
  void (*pad)(const PaddedImages& shape, int64_t images, const T* in, T* scratch);
  void (*sum)(const TapSum<T>& sum, int64_t images, const T* scratch, T* out);
};

/// A 3x3 convolution of stride 1 as Winograd F(4x4, 3x3): each tile of 4x4 outputs comes from 6x6 inputs by
/// 36 products instead of 144. in[images, height, width, in_channels], out[images, out_height, out_width,
/// out_channels].
struct WinogradTiles {
  int64_t height, width, in_channels;
  int64_t out_height, out_width, out_channels;
  int64_t top, left;                     // rows and columns of zeros before the image
  int64_t tile_rows, tile_columns;       // tiles of one image
  int64_t capacity;                      // tiles of one block, for which the scratch is laid out
  int64_t input_stride, product_stride;  // of the 36 transformed inputs and of the 36 products in the scratch
  const float* weights;                  // [36][out_channels / block][in_channels][block]
  const float* zeros;                    // [6][in_channels], read in place of rows outside the image
};

struct WinogradKernels {
  int64_t wide_block;  // as in DirectKernels
  /// Computes tiles [first, first + count), numbered over all images, count <= capacity.
  /// scratch holds 36 * (input_stride + product_stride) floats.
  void (*tiles)(const WinogradTiles& shape, int64_t first, int64_t count, const float* in, float* out, float* scratch);
};

}  // namespace fastntk::cpu

FASTNTK_DECLARE_TABLE(DirectKernels<float>, direct_float)
FASTNTK_DECLARE_TABLE(DirectKernels<double>, direct_double)
FASTNTK_DECLARE_TABLE(WinogradKernels, winograd)
