// Convolution with one set of weights as a product of matrices by tiles, of which the left one, images unfolded, is
// never made: a thread reads its terms from the images. For one tap of the kernel after the other these are channels of
// a pixel, which lie side by side.
#include "engine/cuda/families.h"
#include "engine/cuda/tile.cuh"

namespace fastntk::FASTNTK_GPU {

/// One axis of the images. In the convolution result i meets source pixel i stride − padding + tap dilation. In its
/// transpose it meets (i + padding − tap dilation) / stride, if that is a whole number, which it is for the same taps
/// for every stride-th i: a phase.
struct TapAxis {
  int source, results, taps, stride, padding, dilation;  // of 32 bits: registers are scarce
  bool transposed;

  FASTNTK_HOST_DEVICE int phases() const { return transposed ? stride : 1; }
  int results_of_phase() const { return (results - 1) / phases() + 1; }
  __device__ bool meets(int phase, int tap) const {
    return !transposed || (phase + padding - tap * dilation) % stride == 0;
  }
  /// Result `i` of a phase with a tap that it meets: the pixel start(i) + offset(phase, tap), which may be outside.
  __device__ int start(int i) const { return transposed ? i : i * stride - padding; }
  __device__ int offset(int phase, int tap) const {
    return transposed ? (phase + padding - tap * dilation) / stride : tap * dilation;
  }
};

/// Results [images, high.results, wide.results, columns] from a source [images, high.source, wide.source, terms] and
/// weights [high.taps, wide.taps, terms, columns].
template <class T>
struct ImplicitProduct {
  TapAxis high, wide;
  int terms, columns;
  int64_t rows, row_tiles = 0, column_tiles = 0;  // rows of a phase; tiles are set before the launch
  Divisor rows_high, rows_wide;                   // of an image, in a phase
  bool source_aligned, weights_aligned, results_aligned;
  const T *source, *weights;
  T* results;
};

/// A tap and the first of its terms.
struct Step {
  int tap_high, tap_wide, term;
};

/// Tiles of a few packs of rows and columns by thread. Every result is one sum over taps and terms in their order, so
/// bits do not depend on the size of the tiles.
template <int row_packs, int column_packs, class T>
__global__ void __launch_bounds__(tile_threads, 1) implicit_convolution_kernel(int64_t blocks, ImplicitProduct<T> p) {
  constexpr int own_rows = row_packs * pack_width<T>, own_columns = column_packs * pack_width<T>;
  constexpr int rows = own_rows * tile_side, columns = own_columns * tile_side;
  using Left = Panel<T, rows>;
  using Right = Panel<T, columns>;
  FASTNTK_SHARED(Left, left);
  FASTNTK_SHARED(Right, right);
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int first_column = static_cast<int>(block % p.column_tiles) * columns;
    const int64_t first_row = block / p.column_tiles % p.row_tiles * rows;
    const int phase = static_cast<int>(block / p.column_tiles / p.row_tiles);
    const int phase_high = phase / p.wide.phases(), phase_wide = phase % p.wide.phases();

    AlongTerms<T, rows> from_source;
    AlongLines<T, columns> from_weights;
    // Where this thread's rows of the source begin: the image's first pixel, and a pixel of it; of a row beyond the
    // last one far outside.
    int64_t image[from_source.parts];
    int y[from_source.parts], x[from_source.parts];
    for (int part = 0; part < from_source.parts; part++) {
      const int64_t row = first_row + from_source.line(part), line = row / p.rows_wide;
      image[part] = line / p.rows_high * p.high.source * p.wide.source;
      y[part] = row < p.rows ? p.high.start(static_cast<int>(line % p.rows_high)) : -(1 << 30);
      x[part] = p.wide.start(static_cast<int>(row % p.rows_wide));
    }
    const auto load = [&](const Step& step) {
      const int dy = p.high.offset(phase_high, step.tap_high), dx = p.wide.offset(phase_wide, step.tap_wide);
      from_source.load(step.term, [&](int part, int, int term) {
        const int iy = y[part] + dy, ix = x[part] + dx;
        const bool inside = iy >= 0 && iy < p.high.source && ix >= 0 && ix < p.wide.source;
        const int64_t pixel = inside ? image[part] + int64_t{iy} * p.wide.source + ix : 0;
        return load_pack(p.source + pixel * p.terms + term, inside ? p.terms - term : 0, p.source_aligned);
      });
      const T* const of_tap =
          p.weights + int64_t{step.tap_high * p.wide.taps + step.tap_wide} * p.terms * p.columns + first_column;
      from_weights.load(step.term, [&](int line, int term) {
        return load_pack(of_tap + int64_t{term} * p.columns + line,
                         term < p.terms ? p.columns - first_column - line : 0, p.weights_aligned);
      });
    };
    const auto next_tap = [&](Step& step) {
      if (++step.tap_wide == p.wide.taps) step.tap_wide = 0, step.tap_high++;
    };
    // The next step with a tap that this phase meets; its tap_high is that of no tap after the last one.
    const auto settle = [&](Step& step) {
      while (step.tap_high < p.high.taps &&
             !(p.high.meets(phase_high, step.tap_high) && p.wide.meets(phase_wide, step.tap_wide)))
        next_tap(step);
    };
    const auto advance = [&](Step& step) {
      step.term += tile_depth;
      if (step.term < p.terms) return;
      step.term = 0;
      next_tap(step);
      settle(step);
    };

    T sum[own_rows][own_columns] = {};
    Step step{0, 0, 0};
    settle(step);
    if (step.tap_high < p.high.taps) load(step);
    while (step.tap_high < p.high.taps) {
      __syncthreads();  // the panels may still be read
      from_source.store(left);
      from_weights.store(right);
      __syncthreads();
      advance(step);
      if (step.tap_high < p.high.taps) load(step);  // on its way while the panels are multiplied
      multiply(left, 0, right, sum);
    }

    for (int i = 0; i < own_rows; i++) {
      const int64_t row = first_row + tile_line<T>(threadIdx.y, i), line = row / p.rows_wide;
      const int64_t oy = line % p.rows_high * p.high.phases() + phase_high;
      const int64_t ox = row % p.rows_wide * p.wide.phases() + phase_wide;
      if (!(row < p.rows && oy < p.high.results && ox < p.wide.results)) continue;
      T* const pixel =
          p.results + ((line / p.rows_high * p.high.results + oy) * p.wide.results + ox) * p.columns + first_column;
      for (int j = 0; j < own_columns; j += pack_width<T>) {
        const int column = tile_line<T>(threadIdx.x, j);
        store_pack(pixel + column, pack_of(sum[i], j), p.columns - first_column - column, p.results_aligned);
      }
    }
  }
}

/// Blocks that keep a GPU busy, where tiles can be smaller instead; few in the emulator, whose tests then reach both.
constexpr int64_t enough_blocks = device == Device::emu ? 8 : 256;

template <class T, int row_packs, int column_packs>
void launch_product(ImplicitProduct<T> p) {
  constexpr int rows = row_packs * pack_width<T> * tile_side, columns = column_packs * pack_width<T> * tile_side;
  p.row_tiles = (p.rows + rows - 1) / rows;
  p.column_tiles = (p.columns + columns - 1) / columns;
  const int64_t blocks = p.row_tiles * p.column_tiles * p.high.phases() * p.wide.phases();
  if constexpr (row_packs > 1)
    if (blocks < enough_blocks) return launch_product<T, row_packs / 2, column_packs>(p);
  launch({blocks_for(blocks)}, {tile_side, tile_side}, implicit_convolution_kernel<row_packs, column_packs, T>, blocks,
         p);
}

template <class T>
void implicit_convolution_typed(const TapAxis& high, const TapAxis& wide, const Tensor& x, const Tensor& w, Tensor& y) {
  const Tensor source = x.contiguous(), weights = w.contiguous();
  const int terms = narrow(w.extent(-2)), columns = narrow(w.extent(-1));
  const auto rows_are_packs = [](const Tensor& t) {
    return t.extent(-1) % pack_width<T> == 0 && aligned_to_packs(elements<T>(t));
  };
  const int64_t images = y.elements() / (int64_t{high.results} * wide.results * columns);
  ImplicitProduct<T> p{.high = high,
                       .wide = wide,
                       .terms = terms,
                       .columns = columns,
                       .rows = images * high.results_of_phase() * wide.results_of_phase(),
                       .rows_high = high.results_of_phase(),
                       .rows_wide = wide.results_of_phase(),
                       .source_aligned = rows_are_packs(source),
                       .weights_aligned = rows_are_packs(weights),
                       .results_aligned = rows_are_packs(y),
                       .source = elements<T>(source),
                       .weights = elements<T>(weights),
                       .results = elements_to_write<T>(y)};
  const bool narrow_tiles = columns <= tile_side * pack_width<T>;
  narrow_tiles ? launch_product<T, 2, 1>(p) : launch_product<T, 2, 2>(p);
}

void implicit_convolution(const ConvolutionShape& s, bool transposed, const Tensor& x, const Tensor& w, Tensor& y) {
  const auto axis = [&](int64_t in, int64_t out, int64_t taps, int64_t stride, int64_t padding, int64_t dilation) {
    return TapAxis{narrow(transposed ? out : in),
                   narrow(transposed ? in : out),
                   narrow(taps),
                   narrow(stride),
                   narrow(padding),
                   narrow(dilation),
                   transposed};
  };
  const TapAxis high =
      axis(s.height, s.out_height(), s.kernel_height, s.stride_height, s.padding_height, s.dilation_height);
  const TapAxis wide = axis(s.width, s.out_width(), s.kernel_width, s.stride_width, s.padding_width, s.dilation_width);
  const Tensor by_tap = w.permute(transposed ? std::array{2, 3, 0, 1} : std::array{2, 3, 1, 0});
  for_floating(x.dtype(), "conv2d",
               [&](auto zero) { implicit_convolution_typed<decltype(zero)>(high, wide, x, by_tap, y); });
}

}  // namespace fastntk::FASTNTK_GPU
