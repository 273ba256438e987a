#include "engine/cpu/weight_gradient.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "engine/cpu/depthwise.h"
#include "engine/cpu/isa/weight_gradient.h"
#include "engine/parallel.h"
#include "engine/storage.h"

namespace fastntk::cpu {
namespace {

// The work is a product [output channels, pixels] x [pixels, taps and input channels] for every image. Images are
// copied with their border of zeros, in blocks of channels [block][row][column][channel], so that the taps of one
// kernel row are neighbours in memory: a register tile is a few output channels (broadcast from dy) by three registers
// of (tap, channel).

// Output pixels per register sum: x, dy and the sums of a unit of work stay in the level-1 cache. Part of what the
// result is.
constexpr int64_t pixel_block = 128;
// Tiles of output channels in a unit of work, for the same reason.
constexpr int64_t unit_tiles = 4;
// Copies of images made at a time by one thread, in bytes: for level 2.
constexpr int64_t copies_bytes = int64_t{512} << 10;
// Gradients of single images kept at a time, in bytes.
constexpr size_t own_sums_bytes = size_t{4} << 20;
// Below this many multiply-adds waking other threads does not pay.
constexpr double worth_threads = 2e6;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
const WeightGradientKernels<T>& kernels() {
  const WeightGradientTable& table = FASTNTK_DISPATCH(weight_gradient_table);
  if constexpr (sizeof(T) == 4)
    return table.f32;
  else
    return table.f64;
}

template <class Body>
void run_tasks(int64_t tasks, bool threads, const Body& body) {
  if (threads) return parallel_for(tasks, std::cref(body));
  for (int64_t i = 0; i < tasks; i++) body(i);
}

template <class T>
class WeightGradient {
 public:
  WeightGradient(const ConvolutionShape& shape, int64_t images) : s_(shape) {
    threads_ = !in_parallel() && thread_count() > 1 && shape.flops() * static_cast<double>(images) >= 2 * worth_threads;
    const int64_t blocks_of_rows = ceil_div(oh_, std::max<int64_t>(1, pixel_block / ow_));
    block_rows_ = ceil_div(oh_, blocks_of_rows);
    for (int64_t u = 0; u < block_rows_; u++)
      for (int64_t v = 0; v < ow_; v++)
        offsets_.push_back((u * s_.stride_height * padded_width_ + v * s_.stride_width) * block_);
  }

  void run(int64_t images, const T* x, const T* dy, T* dw, bool accumulate) const {
    const Buffer sums(elements_ * sizeof(T));
    if (accumulate) exchange(dw, sums.as<T>(), [](T& weight, T& sum) { sum = weight; });
    const bool own_sums = block_rows_ < oh_ && 16 * elements_ * sizeof(T) <= own_sums_bytes;
    if (threads_ && own_sums)
      sum_by_image(images, x, dy, sums.as<T>(), accumulate);
    else
      sum_by_tile(images, x, dy, sums.as<T>(), accumulate);
    exchange(dw, sums.as<T>(), [](T& weight, T& sum) { weight = sum; });
  }

 private:
  // Padded copies of some images and the rearranged cotangents.
  struct Copies {
    Copies(const WeightGradient& w, int64_t images)
        : x(static_cast<size_t>(images * w.x_elements_ + w.run_columns_) * sizeof(T)),
          dy(static_cast<size_t>(images * w.dy_elements_) * sizeof(T)) {
      // A register may reach past the last pixel; what it finds there is not used, but must not be a denormal number.
      std::fill_n(x.as<T>() + images * w.x_elements_, w.run_columns_, T{});
    }
    const Buffer x, dy;
  };

  // A task is some tiles of the result for all images. Best where there are many weights.
  void sum_by_tile(int64_t images, const T* x, const T* dy, T* sums, bool add) const {
    const int64_t bytes = (x_elements_ + dy_elements_) * static_cast<int64_t>(sizeof(T));
    const int64_t group = std::clamp<int64_t>((threads_ ? 2 : 1) * copies_bytes / bytes, 1, images);
    const Copies copies(*this, group);
    const bool few = s_.groups * blocks_ * ceil_div(tiles_, unit_tiles) < 2 * thread_count();
    const int64_t unit = threads_ && few ? 1 : unit_tiles, units = ceil_div(tiles_, unit);
    for (int64_t first = 0; first < images; first += group) {
      const int64_t count = std::min(group, images - first);
      run_tasks(count, threads_, [&](int64_t i) { copy(first + i, x, dy, copies, i); });
      run_tasks(s_.groups * blocks_ * units, threads_, [&](int64_t task) {
        add_images(count, copies, task / units, task % units * unit, unit, sums, add || first > 0);
      });
    }
  }

  // A task is one image, whose gradient is kept and added in turn. Best where images are large: they need a sum of
  // their own anyway, and stay in the caches of one processor.
  void sum_by_image(int64_t images, const T* x, const T* dy, T* sums, bool add) const {
    const auto elements = static_cast<int64_t>(elements_);
    const int64_t group = std::min<int64_t>(own_sums_bytes / (elements_ * sizeof(T)), images);
    const Buffer own(static_cast<size_t>(group) * elements_ * sizeof(T));
    for (int64_t first = 0; first < images; first += group) {
      const int64_t count = std::min(group, images - first);
      parallel_for(count, [&](int64_t i) {
        const Copies copies(*this, 1);
        copy(first + i, x, dy, copies, 0);
        for (int64_t block = 0; block < s_.groups * blocks_; block++)
          for (int64_t tile = 0; tile < tiles_; tile += unit_tiles)
            add_images(1, copies, block, tile, unit_tiles, own.as<T>() + i * elements, false);
      });
      parallel_ranges(elements, 4096, [&](int64_t from, int64_t to) {
        const bool start = !add && first == 0;
        if (start) std::copy(own.as<T>() + from, own.as<T>() + to, sums + from);
        for (int64_t i = start ? 1 : 0; i < count; i++)
          for (int64_t e = from; e < to; e++) sums[e] += own.as<T>()[i * elements + e];
      });
    }
  }

  // Image `from` of the caller becomes image `to` of the copies.
  void copy(int64_t from, const T* x, const T* dy, const Copies& copies, int64_t to) const {
    copy_image(x + from * s_.input_elements(), copies.x.template as<T>() + to * x_elements_);
    copy_cotangent(dy + from * s_.output_elements(), copies.dy.template as<T>() + to * dy_elements_);
  }
  // [height, width, all channels] to [group and block][padded row][padded column][channel of the block].
  void copy_image(const T* x, T* to) const {
    for (int64_t g = 0; g < s_.groups; g++)
      for (int64_t b = 0; b < blocks_; b++, to += plane_) {
        const int64_t channels = std::min(block_, c_ - b * block_), row = padded_width_ * block_;
        std::fill_n(to, s_.padding_height * row, T{});
        std::fill_n(to + plane_ - s_.padding_height * row, s_.padding_height * row, T{});
        for (int64_t h = 0; h < s_.height; h++) {
          T* const out = to + (h + s_.padding_height) * row;
          const T* const in = x + h * s_.width * s_.in_channels + g * c_ + b * block_;
          std::fill_n(out, s_.padding_width * block_, T{});
          std::fill_n(out + row - s_.padding_width * block_, s_.padding_width * block_, T{});
          copy_pixels(s_.width, channels, in, s_.in_channels, out + s_.padding_width * block_, block_);
        }
      }
  }
  // [pixels, all channels] to [group and tile][pixel][channel of the tile].
  void copy_cotangent(const T* dy, T* to) const {
    for (int64_t g = 0; g < s_.groups; g++)
      for (int64_t t = 0; t < tiles_; t++, to += oh_ * ow_ * k_.rows)
        copy_pixels(oh_ * ow_, std::min(k_.rows, m_ - t * k_.rows), dy + g * m_ + t * k_.rows, s_.out_channels, to,
                    k_.rows);
  }
  // Copies `channels` of each pixel; out has `width` per pixel, the rest zero.
  static void copy_pixels(int64_t pixels, int64_t channels, const T* in, int64_t in_stride, T* out, int64_t width) {
    if (channels == in_stride && channels == width) return std::copy_n(in, pixels * width, out), void();
    if (channels == width && width % 4 == 0) {
      for (int64_t p = 0; p < pixels; p++, in += in_stride, out += width)
        for (int64_t c = 0; c < width; c += 4) std::memcpy(out + c, in + c, 4 * sizeof(T));
      return;
    }
    for (int64_t p = 0; p < pixels; p++, in += in_stride, out += width) {
      for (int64_t c = 0; c < channels; c++) out[c] = in[c];
      for (int64_t c = channels; c < width; c++) out[c] = T{};
    }
  }

  // Adds the gradients of `count` images to one block's sums [tile][run][row of the tile][tap and channel]: at most
  // `unit` tiles from `tile` on. Blocks count through all groups.
  void add_images(int64_t count, const Copies& copies, int64_t block, int64_t tile, int64_t unit, T* sums,
                  bool add) const {
    const int64_t tiles = std::min(unit, tiles_ - tile), elements = tiles * tile_elements_;
    const T* x = copies.x.template as<T>() + block * plane_;
    const T* dy = copies.dy.template as<T>() + (block / blocks_ * tiles_ + tile) * oh_ * ow_ * k_.rows;
    sums += (block * tiles_ + tile) * tile_elements_;
    const bool one_block = block_rows_ >= oh_;
    const Buffer own = one_block || (count == 1 && !add) ? Buffer() : Buffer(static_cast<size_t>(elements) * sizeof(T));
    for (int64_t i = 0; i < count; i++, x += x_elements_, dy += dy_elements_, add = true) {
      T* const to = one_block || !add ? sums : own.as<T>();
      for (int64_t u = 0; u < oh_; u += block_rows_)
        add_block(x + u * s_.stride_height * padded_width_ * block_, dy + u * ow_ * k_.rows,
                  std::min(block_rows_, oh_ - u) * ow_, tiles, to, one_block ? add : u > 0);
      if (to == sums) continue;
      for (int64_t e = 0; e < elements; e++) sums[e] += to[e];
    }
  }
  void add_block(const T* x, const T* dy, int64_t pixels, int64_t tiles, T* to, bool add) const {
    const int64_t pieces = ceil_div(vectors_, 3);
    for (int64_t t = 0; t < tiles; t++, dy += oh_ * ow_ * k_.rows)
      for (int64_t i = 0; i < s_.kernel_height; i++)
        for (int64_t j = 0; j < s_.kernel_width; j += taps_, to += k_.rows * run_columns_) {
          const T* const tap = x + (i * s_.dilation_height * padded_width_ + j * s_.dilation_width) * block_;
          for (int64_t piece = 0; piece < pieces; piece++) {
            const int64_t from = piece * vectors_ / pieces, vectors = (piece + 1) * vectors_ / pieces - from;
            k_.tile[vectors - 1](pixels, offsets_.data(), tap + from * k_.lanes, dy, to + from * k_.lanes, run_columns_,
                                 add);
          }
        }
  }

  // Calls f(weight, its sum) for all weights.
  template <class F>
  void exchange(T* dw, T* sums, const F& f) const {
    run_tasks(s_.out_channels, threads_ && elements_ >= 100000, [&](int64_t k) {
      const int64_t g = k / m_, tile = k % m_ / k_.rows, row = k % m_ % k_.rows;
      T* weight = dw + k * c_ * s_.kernel_height * s_.kernel_width;
      for (int64_t c = 0; c < c_; c++) {
        T* run = sums + ((g * blocks_ + c / block_) * tiles_ + tile) * tile_elements_ + row * run_columns_ + c % block_;
        for (int64_t i = 0; i < s_.kernel_height; i++)
          for (int64_t j = 0; j < s_.kernel_width; j += taps_, run += k_.rows * run_columns_)
            for (int64_t tap = 0; tap < taps_; tap++) f(*weight++, run[tap * block_]);
      }
    });
  }

  const WeightGradientKernels<T>& k_ = kernels<T>();
  const ConvolutionShape s_;
  const int64_t oh_ = s_.out_height(), ow_ = s_.out_width();
  const int64_t c_ = s_.in_channels / s_.groups, m_ = s_.out_channels / s_.groups;
  // Neighbouring taps of a kernel row form one run of columns where they touch.
  const int64_t taps_ = s_.dilation_width == 1 ? s_.kernel_width : 1;
  const int64_t block_ = c_ < 16 ? c_ : taps_ > 1 || c_ < 32 ? 16 : 32;
  const int64_t blocks_ = ceil_div(c_, block_), tiles_ = ceil_div(m_, k_.rows);
  const int64_t vectors_ = ceil_div(taps_ * block_, k_.lanes), run_columns_ = vectors_ * k_.lanes;
  const int64_t tile_elements_ = s_.kernel_height * (s_.kernel_width / taps_) * k_.rows * run_columns_;
  const size_t elements_ = static_cast<size_t>(s_.groups * blocks_ * tiles_ * tile_elements_);  // of all sums
  const int64_t padded_width_ = s_.width + 2 * s_.padding_width;
  const int64_t plane_ = (s_.height + 2 * s_.padding_height) * padded_width_ * block_;
  const int64_t x_elements_ = s_.groups * blocks_ * plane_, dy_elements_ = s_.groups * tiles_ * oh_ * ow_ * k_.rows;
  int64_t block_rows_ = 0;
  std::vector<int64_t> offsets_;  // of the pixels of a block of rows, in a plane
  bool threads_ = false;
};

}  // namespace

template <class T>
void convolution_weight_gradient(const ConvolutionShape& shape, int64_t images, const T* x, const T* dy, T* dw,
                                 bool accumulate) {
  if (images <= 0 || shape.output_elements() <= 0) {
    if (!accumulate) std::fill_n(dw, shape.weight_elements(), T{});
    return;
  }
  if (is_depthwise(shape)) return depthwise_weight_gradient(shape, images, x, dy, dw, accumulate);
  WeightGradient<T>(shape, images).run(images, x, dy, dw, accumulate);
}

template void convolution_weight_gradient<float>(const ConvolutionShape&, int64_t, const float*, const float*, float*,
                                                 bool);
template void convolution_weight_gradient<double>(const ConvolutionShape&, int64_t, const double*, const double*,
                                                  double*, bool);

}  // namespace fastntk::cpu
