// Winograd F(4x4, 3x3) (Lavin and Gray, 2015), with the points 0, 1, -1, 2, -2 and infinity, on blocks of tiles that
// stay in L2: transform of the inputs -> 36 small matrix products [tiles, C] x [C, K] -> transform of the products.
#include "engine/cpu/isa/register_tile.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

constexpr int out_side = 4, in_side = 6;  // of a tile
constexpr int products = in_side * in_side;
using V = Vector<float>;

/// a * b + c with a constant a.
inline __attribute__((always_inline)) V mad(float a, V b, V c) { return multiply_add<float>(splat(a), b, c); }

/// B^T d, the input transform of one line; only rows 2 * Pair and 2 * Pair + 1 of 0, 5; 1, 2; 3, 4.
template <int Pair>
inline __attribute__((always_inline)) void transform_input(const V (&d)[in_side], V& first, V& second) {
  if constexpr (Pair == 0) {
    first = mad(4, d[0], mad(-5, d[2], d[4]));
    second = mad(4, d[1], mad(-5, d[3], d[5]));
  } else {
    constexpr float s = Pair == 1 ? -4 : -1, t = Pair == 1 ? 1 : 2;
    const V a = mad(s, d[2], d[4]), b = Pair == 1 ? mad(-4, d[1], d[3]) : d[3] - d[1];
    first = mad(t, b, a);
    second = mad(-t, b, a);
  }
}

/// A^T m: the output transform of one line.
inline __attribute__((always_inline)) void transform_output(const V* m, V* o) {
  const V p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], t = m[3] - m[4];
  o[0] = m[0] + p + r;
  o[1] = mad(2, t, q);
  o[2] = mad(4, r, p);
  o[3] = mad(8, t, q + m[5]);
}

/// A tile's place: the image, and the row and column of its first output pixel.
struct Place {
  int64_t image, row, column;
};
inline Place place_of(const WinogradTiles& q, int64_t tile) {
  const int64_t per_image = q.tile_rows * q.tile_columns, within = tile % per_image;
  return {tile / per_image, within / q.tile_columns * out_side, within % q.tile_columns * out_side};
}
inline void advance(const WinogradTiles& q, Place& p) {
  p.column += out_side;
  if (p.column < q.tile_columns * out_side) return;
  p.column = 0;
  p.row += out_side;
  if (p.row < q.tile_rows * out_side) return;
  p.row = 0;
  p.image++;
}

/// Rows `first` and `second` of the input transform of one tile, one vector of channels.
template <int Pair, bool Edge>
inline __attribute__((always_inline)) void input_rows(const float* const (&line)[in_side], int64_t step, int64_t begin,
                                                      int64_t end, float* first, float* second, int64_t stride) {
  V half[2][in_side];
#pragma GCC unroll 6
  for (int j = 0; j < in_side; j++) {
    V d[in_side] = {};
    if (!Edge || (j >= begin && j < end))
#pragma GCC unroll 6
      for (int i = 0; i < in_side; i++) d[i] = load(line[i] + j * step);
    transform_input<Pair>(d, half[0][j], half[1][j]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    float* const to = i == 0 ? first : second;
    V o[in_side];
    transform_input<0>(half[i], o[0], o[5]);
    transform_input<1>(half[i], o[1], o[2]);
    transform_input<2>(half[i], o[3], o[4]);
#pragma GCC unroll 6
    for (int j = 0; j < in_side; j++) store(to + j * stride, o[j]);
  }
}
template <bool Edge>
__attribute__((noinline)) void input_block(const float* const (&row)[in_side], int64_t c, int64_t step, int64_t begin,
                                           int64_t end, float* to, int64_t stride) {
  const float* line[in_side];
#pragma GCC unroll 6
  for (int i = 0; i < in_side; i++) line[i] = row[i] + c;
  input_rows<0, Edge>(line, step, begin, end, to, to + 30 * stride, stride);
  input_rows<1, Edge>(line, step, begin, end, to + 6 * stride, to + 12 * stride, stride);
  input_rows<2, Edge>(line, step, begin, end, to + 18 * stride, to + 24 * stride, stride);
}
inline void input_tile(const WinogradTiles& q, const float* const (&line)[in_side], int64_t begin, int64_t end,
                       float* to) {
  for (int64_t c = 0; c < q.in_channels; c += lanes<float>) {
    float* const d = to + c / channel_block * channel_block * q.capacity + c % channel_block;
    if (begin <= 0 && end >= in_side)
      input_block<false>(line, c, q.in_channels, begin, end, d, q.input_stride);
    else
      input_block<true>(line, c, q.in_channels, begin, end, d, q.input_stride);
  }
}

/// scratch[product][in_channels / 16][tile][16]
void input_tiles(const WinogradTiles& q, int64_t first, int64_t count, const float* in, float* to) {
  const int64_t row = q.width * q.in_channels;
  Place p = place_of(q, first);
  for (int64_t t = 0; t < count; t++, to += channel_block, advance(q, p)) {
    const int64_t h = p.row - q.top, w = p.column - q.left;
    const float* const x = in + (p.image * q.height + h) * row + w * q.in_channels;
    const float* line[in_side];
    for (int64_t i = 0; i < in_side; i++) line[i] = h + i >= 0 && h + i < q.height ? x + i * row : q.zeros;
    input_tile(q, line, -w, q.width - w, to);
    // The next row of tiles: without this the transforms wait for memory.
    for (int64_t i = in_side; i < in_side + out_side; i++)
      for (int64_t c = q.in_channels; c < (out_side + 1) * q.in_channels; c += channel_block)
        prefetch<0>(x + i * row + c);
  }
}

/// scratch[product][out_channels / block][tile][block] from the transformed inputs and weights.
template <int Vectors>
void multiply(const WinogradTiles& q, int64_t count, const float* in, float* out) {
  constexpr int64_t block = Vectors * lanes<float>;
  const int64_t no_offset = 0, steps = q.in_channels / channel_block;
  Taps<float> taps{steps, 1, &no_offset, q.capacity * channel_block, 0, 0, block};
  const Parts parts = equal_parts(count, tile_pixels<Vectors>);
  const auto run = tile_run_for<float, Vectors, channel_block, 1>(1, parts.size);
  const auto run_small = tile_run_for<float, Vectors, channel_block, 1>(1, parts.size - 1);
  const int64_t weights_of_block = q.in_channels * block;
  // Weights that do not stay in L2 are fetched one block ahead, a share with each tile.
  if (products * q.in_channels * q.out_channels > (256 << 10)) {
    const int64_t shares = (parts.large + parts.small) * steps, lines = weights_of_block / channel_block;
    taps.ahead_lines = (lines + shares - 1) / shares;
  }
  const int64_t wide = parts.large * parts.size;
  const float* w = q.weights;
  for (int e = 0; e < products; e++, in += q.input_stride, out += q.product_stride)
    for (int64_t k = 0; k < q.out_channels; k += block, w += weights_of_block) {
      float* const o = out + k * q.capacity;
      taps.ahead = w + weights_of_block;
      run(taps, parts.large, in, parts.size * channel_block, w, o, parts.size * block);
      if (!parts.small) continue;
      taps.ahead += parts.large * steps * taps.ahead_lines * channel_block;
      run_small(taps, parts.small, in + wide * channel_block, (parts.size - 1) * channel_block, w, o + wide * block,
                (parts.size - 1) * block);
    }
}

/// Output transform of one tile, one vector of channels; only `rows` x `columns` pixels of it lie inside the image
/// (Edge).
template <bool Edge>
__attribute__((noinline)) void output_block(const float* m, int64_t stride, float* y, int64_t row, int64_t step,
                                            int64_t rows, int64_t columns) {
  V half[out_side][in_side];
#pragma GCC unroll 6
  for (int j = 0; j < in_side; j++) {
    V d[in_side], o[out_side];
#pragma GCC unroll 6
    for (int i = 0; i < in_side; i++) d[i] = load(m + (i * in_side + j) * stride);
    transform_output(d, o);
#pragma GCC unroll 4
    for (int i = 0; i < out_side; i++) half[i][j] = o[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < out_side; i++) {
    if (Edge && i >= rows) return;
    V o[out_side];
    transform_output(half[i], o);
#pragma GCC unroll 4
    for (int j = 0; j < out_side; j++)
      if (!Edge || j < columns) store(y + i * row + j * step, o[j]);
  }
}
inline void output_tile(const WinogradTiles& q, const float* from, float* y, int64_t rows, int64_t columns) {
  const int64_t step = q.out_channels, row = q.out_width * step, block = block_of<float>(q.out_channels);
  for (int64_t k = 0; k < q.out_channels; k += lanes<float>) {
    const float* const m = from + k / block * block * q.capacity + k % block;
    if (rows >= out_side && columns >= out_side)
      output_block<false>(m, q.product_stride, y + k, row, step, rows, columns);
    else
      output_block<true>(m, q.product_stride, y + k, row, step, rows, columns);
  }
}

void output_tiles(const WinogradTiles& q, int64_t first, int64_t count, const float* from, float* out) {
  const int64_t block = block_of<float>(q.out_channels), row = q.out_width * q.out_channels;
  Place p = place_of(q, first);
  for (int64_t t = 0; t < count; t++, from += block, advance(q, p)) {
    float* const y = out + (p.image * q.out_height + p.row) * row + p.column * q.out_channels;
    const int64_t rows = q.out_height - p.row, columns = q.out_width - p.column;
    output_tile(q, from, y, rows, columns);
    for (int64_t i = out_side; i < 2 * out_side; i++)
      for (int64_t c = 0; c < out_side * q.out_channels; c += channel_block) prefetch<1>(y + i * row + c);
  }
}

void tiles(const WinogradTiles& q, int64_t first, int64_t count, const float* in, float* out, float* scratch) {
  float* const product = scratch + products * q.input_stride;
  input_tiles(q, first, count, in, scratch);
  if (block_of<float>(q.out_channels) == wide_block<float>)
    multiply<wide_block<float> / lanes<float>>(q, count, scratch, product);
  else
    multiply<channel_block / lanes<float>>(q, count, scratch, product);
  output_tiles(q, first, count, product, out);
}

}  // namespace

const WinogradKernels winograd{wide_block<float>, tiles};

}  // namespace fastntk::cpu::FASTNTK_ISA
