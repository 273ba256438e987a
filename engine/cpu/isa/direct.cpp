// Direct convolution out of a zero-bordered scratch that stays in L2: the copy into it is needed for the border anyway,
// so it also brings 16 channels of neighbouring pixels together for free.
#include "engine/cpu/isa/register_tile.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

template <class T>
void fill_zero(T* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = 0;
}

/// `count` pixels of `Depth` channels, `step` elements apart in `from`, adjacent in `to`.
template <class T, int Depth>
void copy_pixels(const T* from, int64_t step, int64_t count, T* to) {
  if constexpr (Depth == 1) {
    if (step == 1)
      for (int64_t i = 0; i < count; i++) to[i] = from[i];
    else
      for (int64_t i = 0; i < count; i++) to[i] = from[i * step];
  } else {
    for (int64_t i = 0; i < count; i++, from += step, to += Depth)
#pragma GCC unroll 8
      for (int v = 0; v < Depth; v += lanes<T>) store(to + v, load(from + v));
  }
}

template <class T, int Depth>
void pad_images(const PaddedImages& q, int64_t images, const T* in, T* scratch) {
  const int64_t row = q.width * q.channels;
  for (int64_t n = 0; n < images; n++, in += q.height * row)
    for (int64_t c = 0; c < q.channels; c += Depth)
      for (int64_t r = 0; r < q.rows; r++, scratch += q.row_stride) {
        const int64_t h = r - q.top;
        if (h < 0 || h >= q.height) {
          fill_zero(scratch, q.row_stride);
          continue;
        }
        const T* const from = in + h * row + c;
        for (int64_t phase = 0; phase < q.phases; phase++) {
          T* const to = scratch + phase * q.columns * Depth;
          // Position j holds column j * phases + phase - left of the image: inside for begin <= j < end.
          int64_t begin = (q.left - phase + q.phases - 1) / q.phases;
          int64_t end = (q.left - phase + q.width + q.phases - 1) / q.phases;
          begin = begin < 0 ? 0 : begin > q.columns ? q.columns : begin;
          end = end < begin ? begin : end > q.columns ? q.columns : end;
          fill_zero(to, begin * Depth);
          copy_pixels<T, Depth>(from + (begin * q.phases + phase - q.left) * q.channels, q.phases * q.channels,
                                end - begin, to + begin * Depth);
          fill_zero(to + end * Depth, (q.columns - end) * Depth);
        }
      }
}

template <class T>
void pad(const PaddedImages& q, int64_t images, const T* in, T* scratch) {
  if (q.depth == 1)
    pad_images<T, 1>(q, images, in, scratch);
  else
    pad_images<T, channel_block>(q, images, in, scratch);
}

/// A rectangle cut into tiles of at most `limit` pixels and max_rows rows: as few tiles as possible, since each of them
/// reads all the weights.
struct Tiling {
  Parts rows, columns;
};
inline Tiling tiling_of(int64_t rows, int64_t columns, int64_t limit, int64_t max_rows) {
  Tiling best{};
  int64_t fewest = 0;
  for (int64_t height = max_rows < limit ? max_rows : limit; height >= 1; height--) {
    const Tiling t{equal_parts(rows, height), equal_parts(columns, limit / height)};
    const int64_t tiles = (t.rows.large + t.rows.small) * (t.columns.large + t.columns.small);
    if (fewest == 0 || tiles < fewest) best = t, fewest = tiles;
  }
  return best;
}

template <class T, int V, int Depth, int MaxRows>
void sum_taps(const TapSum<T>& q, int64_t images, const T* scratch, T* out) {
  constexpr int64_t block = V * lanes<T>;
  Taps<T> taps{q.channel_blocks, q.taps, q.offset, q.block_stride, q.row_stride, q.out_row, q.out_pixel};
  taps.fetch_out = q.out_pixel == q.out_channels;  // between the pixels of a phase, measured: no gain
  const Tiling tiling = tiling_of(q.rows, q.columns, tile_pixels<V>, MaxRows);
  const Parts rows = tiling.rows, columns = tiling.columns;
  TileRun<T> run[2][2];
  for (int64_t r = 0; r < 2; r++)
    for (int64_t c = 0; c < 2; c++) run[r][c] = tile_run_for<T, V, Depth, MaxRows>(rows.size - r, columns.size - c);

  const T* w = q.weights;
  for (int64_t k = 0; k < q.out_channels; k += block, w += q.channel_blocks * q.taps * Depth * block)
    for (int64_t n = 0; n < images; n++) {  // one block of weights serves all the images
      const T* x = scratch + n * q.image_stride;
      T* o = out + n * q.out_image + k;
      for (int64_t i = 0; i < rows.large + rows.small; i++) {
        const int64_t small = i >= rows.large, wide = columns.large * columns.size;
        run[small][0](taps, columns.large, x, columns.size * Depth, w, o, columns.size * q.out_pixel);
        if (columns.small)
          run[small][1](taps, columns.small, x + wide * Depth, (columns.size - 1) * Depth, w, o + wide * q.out_pixel,
                        (columns.size - 1) * q.out_pixel);
        x += (rows.size - small) * q.row_stride;
        o += (rows.size - small) * q.out_row;
      }
    }
}

template <class T, int Depth, int MaxRows>
void sum_depth(const TapSum<T>& q, int64_t images, const T* scratch, T* out) {
  if (block_of<T>(q.out_channels) == wide_block<T>)
    sum_taps<T, wide_block<T> / lanes<T>, Depth, MaxRows>(q, images, scratch, out);
  else
    sum_taps<T, channel_block / lanes<T>, Depth, MaxRows>(q, images, scratch, out);
}

template <class T>
void sum(const TapSum<T>& q, int64_t images, const T* scratch, T* out) {
  if (q.rows == 0 || q.columns == 0) return;
  if (q.depth == 1)
    sum_depth<T, 1, 1>(q, images, scratch, out);
  else
    sum_depth<T, channel_block, 2>(q, images, scratch, out);
}

}  // namespace

const DirectKernels<float> direct_float{wide_block<float>, pad<float>, sum<float>};
const DirectKernels<double> direct_double{wide_block<double>, pad<double>, sum<double>};

}  // namespace fastntk::cpu::FASTNTK_ISA
