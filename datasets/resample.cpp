#include "datasets/resample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace fastntk {
namespace {

constexpr int weight_bits = 22;  // 8 bits of pixel, 22 of weight, 2 for the overshoot of the cubic: 32 in all

double half_width(Filter filter) { return filter == Filter::bilinear ? 1 : 2; }

double value_at(Filter filter, double x) {
  x = std::abs(x);
  if (filter == Filter::bilinear) return x < 1 ? 1 - x : 0;
  constexpr double a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// Output position i is Σ_k weight[i · taps + k] · input[first[i] + k], k < count[i].
struct Weights {
  size_t taps = 0;
  std::vector<int64_t> first, count;
  std::vector<int32_t> weight;
};

Weights weights_of(int64_t in, int64_t out, Filter filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0),
               reach = half_width(filter) * stretch;
  Weights w;
  w.taps = static_cast<size_t>(std::ceil(reach)) * 2 + 1;
  w.weight.resize(static_cast<size_t>(out) * w.taps);
  std::vector<double> exact(w.taps);
  for (int64_t i = 0; i < out; i++) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    // NOLINTBEGIN(bugprone-incorrect-roundings): as Pillow rounds
    const auto first = std::max<int64_t>(static_cast<int64_t>(centre - reach + 0.5), 0);
    const int64_t count = std::min(static_cast<int64_t>(centre + reach + 0.5), in) - first;
    // NOLINTEND(bugprone-incorrect-roundings)
    double sum = 0;
    for (int64_t k = 0; k < count; k++) {
      const double x = (static_cast<double>(k + first) - centre + 0.5) * (1 / stretch);
      sum += exact[static_cast<size_t>(k)] = value_at(filter, x);
    }
    for (size_t k = 0; k < static_cast<size_t>(count); k++) {
      const double share = sum != 0 ? exact[k] * (1 / sum) : exact[k];
      w.weight[static_cast<size_t>(i) * w.taps + k] =
          static_cast<int32_t>(share * (1 << weight_bits) + (share < 0 ? -0.5 : 0.5));
    }
    w.first.push_back(first);
    w.count.push_back(count);
  }
  return w;
}

uint8_t to_byte(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> weight_bits, 0, 255)); }

constexpr int32_t half = 1 << (weight_bits - 1);

// [h, in, c] → [h, out, c]; C is the number of channels, so that the compiler knows it.
template <size_t C>
void along_rows(const uint8_t* from, int64_t height, int64_t in, uint8_t* to, int64_t out, const Weights& w) {
  for (int64_t y = 0; y < height; y++, from += static_cast<size_t>(in) * C)
    for (size_t i = 0; i < static_cast<size_t>(out); i++, to += C) {
      std::array<int32_t, C> sum;
      sum.fill(half);
      const uint8_t* x = from + static_cast<size_t>(w.first[i]) * C;
      const int32_t* const weight = &w.weight[i * w.taps];
      for (size_t k = 0; k < static_cast<size_t>(w.count[i]); k++, x += C)
        for (size_t c = 0; c < C; c++) sum[c] += weight[k] * x[c];
      for (size_t c = 0; c < C; c++) to[c] = to_byte(sum[c]);
    }
}

// [in, row] → [out, row]
void along_columns(const uint8_t* from, int64_t row, uint8_t* to, int64_t out, const Weights& w) {
  const auto length = static_cast<size_t>(row);
  std::vector<int32_t> sum(length);
  for (size_t i = 0; i < static_cast<size_t>(out); i++, to += length) {
    std::fill(sum.begin(), sum.end(), half);
    const uint8_t* x = from + static_cast<size_t>(w.first[i]) * length;
    for (size_t k = 0; k < static_cast<size_t>(w.count[i]); k++, x += length) {
      const int32_t weight = w.weight[i * w.taps + k];
      for (size_t j = 0; j < length; j++) sum[j] += weight * x[j];
    }
    for (size_t j = 0; j < length; j++) to[j] = to_byte(sum[j]);
  }
}

}  // namespace

Tensor resample(const Tensor& image, int64_t height, int64_t width, Filter filter) {
  require(image.rank() == 3 && image.dtype() == DType::uint8 && (image.extent(2) == 1 || image.extent(2) == 3),
          "resize: an image uint8 [h, w, 1 or 3] was expected, got {}", image.describe());
  require(height > 0 && width > 0 && image.elements() > 0, "resize: from {} to {}x{}", image.describe(), height, width);
  const int64_t channels = image.extent(2);
  Tensor current = image.contiguous();
  if (const int64_t in = current.extent(1); in != width) {
    Tensor next({current.extent(0), width, channels}, DType::uint8);
    const auto pass = channels == 1 ? along_rows<1> : along_rows<3>;
    pass(current.data<uint8_t>(), current.extent(0), in, next.mutable_data<uint8_t>(), width,
         weights_of(in, width, filter));
    current = next;
  }
  if (const int64_t in = current.extent(0); in != height) {
    Tensor next({height, width, channels}, DType::uint8);
    along_columns(current.data<uint8_t>(), width * channels, next.mutable_data<uint8_t>(), height,
                  weights_of(in, height, filter));
    current = next;
  }
  return current;
}

}  // namespace fastntk
