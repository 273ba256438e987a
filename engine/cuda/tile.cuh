// Products of matrices by tiles, for kernels whose operands are not matrices in memory: 256 threads share panels of
// both operands, `tile_depth` terms of the sums at a time, and each keeps a few rows and columns of the result in
// registers.
#pragma once
#include "engine/cuda/operand.cuh"

namespace fastntk::FASTNTK_GPU {

constexpr int tile_side = 16;                        ///< blocks have 16 by 16 threads
constexpr int tile_threads = tile_side * tile_side;  ///< of a block
constexpr int tile_depth = 16;                       ///< terms of a panel

/// This thread's number in a block of 16 by 16.
__device__ inline int tile_thread() {
  return static_cast<int>(threadIdx.y) * tile_side + static_cast<int>(threadIdx.x);
}

/// Number i of the rows (`thread`: threadIdx.y) or columns (threadIdx.x) that a thread has of a tile: in packs, those
/// of all threads side by side.
template <class T>
__device__ int tile_line(unsigned thread, int i) {
  constexpr int width = pack_width<T>;
  return (i / width * tile_side + static_cast<int>(thread)) * width + i % width;
}

/// Terms of `lines` rows of the left operand, or columns of the right one. One pack more than that lies between terms,
/// which spreads a line over the banks of the memory.
template <class T, int lines, int terms = tile_depth>
struct Panel {
  alignas(16) T of[terms][lines + pack_width<T>];
};

/// What a thread carries from memory to a panel, of an operand in which the terms of a line lie side by side:
/// source(part, line, term) is a pack of terms; `part` counts the packs of a thread.
template <class T, int lines>
struct AlongTerms {
  static constexpr int width = pack_width<T>, packs_of_line = tile_depth / width;
  static constexpr int lines_at_once = tile_threads / packs_of_line, parts = lines / lines_at_once;
  static_assert(parts * lines_at_once == lines);
  Pack<T, width> held[parts];

  static __device__ int line(int part) { return part * lines_at_once + tile_thread() / packs_of_line; }
  static __device__ int term() { return tile_thread() % packs_of_line * width; }
  template <class Source>
  __device__ void load(int first_term, const Source& source) {
    for (int part = 0; part < parts; part++) held[part] = source(part, line(part), first_term + term());
  }
  __device__ void store(Panel<T, lines>& panel) const {
    for (int part = 0; part < parts; part++)
      for (int i = 0; i < width; i++) panel.of[term() + i][line(part)] = held[part].of[i];
  }
};

/// The same of an operand in which the lines of a term lie side by side: source(line, term) is a pack of lines.
template <class T, int lines>
struct AlongLines {
  static constexpr int width = pack_width<T>, packs_of_term = lines / width;
  static constexpr int terms_at_once = tile_threads / packs_of_term, parts = tile_depth / terms_at_once;
  static_assert(parts * terms_at_once == tile_depth);
  Pack<T, width> held[parts];

  static __device__ int line() { return tile_thread() % packs_of_term * width; }
  static __device__ int term(int part) { return part * terms_at_once + tile_thread() / packs_of_term; }
  template <class Source>
  __device__ void load(int first_term, const Source& source) {
    for (int part = 0; part < parts; part++) held[part] = source(line(), first_term + term(part));
  }
  __device__ void store(Panel<T, lines>& panel) const {
    for (int part = 0; part < parts; part++)
      *reinterpret_cast<Pack<T, width>*>(&panel.of[term(part)][line()]) = held[part];
  }
};

/// Columns i to i + width of a row that a thread has of a tile.
template <class T, int columns>
__device__ Pack<T, pack_width<T>> pack_of(const T (&row)[columns], int i) {
  Pack<T, pack_width<T>> pack;
  for (int k = 0; k < pack_width<T>; k++) pack.of[k] = row[i + k];
  return pack;
}

/// The lines of a thread, of one term.
template <class T, int count>
__device__ void load_own(const T* term, unsigned thread, T (&own)[count]) {
  constexpr int width = pack_width<T>;
  static_assert(count % width == 0);
  for (int i = 0; i < count; i += width) {
    const auto pack = *reinterpret_cast<const Pack<T, width>*>(term + tile_line<T>(thread, i));
    for (int k = 0; k < width; k++) own[i + k] = pack.of[k];
  }
}

/// sum[i][j] += Σ left[term][row i] right[term][column j] over the terms of a panel, from `first` on of the left one.
template <class T, int rows, int columns, int left_terms>
__device__ void multiply(const Panel<T, rows * tile_side, left_terms>& left, int first,
                         const Panel<T, columns * tile_side>& right, T (&sum)[rows][columns]) {
  // By more, and registers spill.
  FASTNTK_UNROLL_BY_4
  for (int k = 0; k < tile_depth; k++) {
    T a[rows], b[columns];
    load_own(left.of[first + k], threadIdx.y, a);
    load_own(right.of[k], threadIdx.x, b);
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) sum[i][j] += a[i] * b[j];
  }
}

}  // namespace fastntk::FASTNTK_GPU
