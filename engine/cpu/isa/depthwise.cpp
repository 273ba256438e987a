#include "engine/cpu/isa/depthwise.h"

#include "engine/cpu/isa/vector.h"

namespace fastntk::cpu::FASTNTK_ISA {
namespace {

// Each works on a few registers of channels, whose sums stay there.
template <class T, int vectors>
inline void sum_block(int64_t rows, const DepthwiseTap* row, int64_t columns, const DepthwiseTap* column, const T* x,
                      const T* w, T* y) {
  Vector<T> acc[vectors] = {};
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < columns; k++) {
      const T* const px = x + row[r].image + column[k].image;
      const T* const pw = w + row[r].weight + column[k].weight;
      for (int v = 0; v < vectors; v++) acc[v] += load(px + v * lanes<T>) * load(pw + v * lanes<T>);
    }
  for (int v = 0; v < vectors; v++) store(y + v * lanes<T>, acc[v]);
}

template <class T>
void sum(int64_t rows, const DepthwiseTap* row, int64_t columns, const DepthwiseTap* column, int64_t channels,
         const T* x, const T* w, T* y) {
  int64_t c = 0;
  for (; c + 4 * lanes<T> <= channels; c += 4 * lanes<T>)
    sum_block<T, 4>(rows, row, columns, column, x + c, w + c, y + c);
  for (; c + lanes<T> <= channels; c += lanes<T>) sum_block<T, 1>(rows, row, columns, column, x + c, w + c, y + c);
  for (; c < channels; c++) {
    T acc = 0;
    for (int64_t r = 0; r < rows; r++)
      for (int64_t k = 0; k < columns; k++)
        acc += x[row[r].image + column[k].image + c] * w[row[r].weight + column[k].weight + c];
    y[c] = acc;
  }
}

template <class T, int vectors>
inline void dot_block(int64_t pixels, const T* x, int64_t x_step, const T* dy, int64_t dy_step, T* sum) {
  Vector<T> acc[vectors];
  for (int v = 0; v < vectors; v++) acc[v] = load(sum + v * lanes<T>);
  for (int64_t p = 0; p < pixels; p++, x += x_step, dy += dy_step)
    for (int v = 0; v < vectors; v++) acc[v] += load(x + v * lanes<T>) * load(dy + v * lanes<T>);
  for (int v = 0; v < vectors; v++) store(sum + v * lanes<T>, acc[v]);
}

template <class T>
void dot(int64_t pixels, const T* x, int64_t x_step, const T* dy, int64_t dy_step, int64_t channels, T* sum) {
  int64_t c = 0;
  for (; c + 4 * lanes<T> <= channels; c += 4 * lanes<T>)
    dot_block<T, 4>(pixels, x + c, x_step, dy + c, dy_step, sum + c);
  for (; c + lanes<T> <= channels; c += lanes<T>) dot_block<T, 1>(pixels, x + c, x_step, dy + c, dy_step, sum + c);
  for (; c < channels; c++) {
    T acc = sum[c];
    for (int64_t p = 0; p < pixels; p++) acc += x[p * x_step + c] * dy[p * dy_step + c];
    sum[c] = acc;
  }
}

}  // namespace

extern const DepthwiseTable depthwise_table;
const DepthwiseTable depthwise_table = {{sum<float>, dot<float>}, {sum<double>, dot<double>}};

}  // namespace fastntk::cpu::FASTNTK_ISA
