// Reductions by trees of a fixed shape: the same bits in every run, without atomics.
#pragma once
#include "engine/cuda/operand.cuh"

namespace fastntk::FASTNTK_GPU {

struct Sum {
  template <class T>
  static FASTNTK_HOST_DEVICE T start() {
    return T(0);
  }
  template <class T>
  static FASTNTK_HOST_DEVICE T join(T a, T b) {
    return a + b;
  }
};
struct Max {
  template <class T>
  static FASTNTK_HOST_DEVICE T start() {
    return -static_cast<T>(INFINITY);
  }
  template <class T>
  static FASTNTK_HOST_DEVICE T join(T a, T b) {
    return b > a || b != b ? b : a;  // a NaN stays one
  }
};

/// What softmax subtracts from logits of which this is the largest: nothing if it is infinite.
template <class T>
__device__ T softmax_shift(T largest) {
  return largest - largest != T(0) && largest == largest ? T(0) : largest;
}

constexpr unsigned all_lanes = 0xffffffffU;
constexpr unsigned most_warps = 8;

template <class Join, class T>
__device__ T join_warp(T v) {
  for (int distance = 16; distance > 0; distance /= 2) v = Join::join(v, __shfl_xor_sync(all_lanes, v, distance));
  return v;
}

/// The values of all threads of a block joined, in every thread. All threads must call it; their number is a multiple
/// of 32, at most 256.
template <class Join, class T>
__device__ T join_block(T v) {
  FASTNTK_SHARED(T, part, [most_warps]);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  v = join_warp<Join>(v);
  __syncthreads();  // the parts of a call before may still be read
  if (lane == 0) part[warp] = v;
  __syncthreads();
  v = part[0];
  for (unsigned i = 1; i < warps; i++) v = Join::join(v, part[i]);
  return v;
}

/// value(output, i) joined over i < length, one block for an output: for elements that lie side by side along i.
template <class Join, class Value, class Store>
__global__ void reduce_along(int64_t outputs, int64_t length, Value value, Store store) {
  for (int64_t output = blockIdx.x; output < outputs; output += gridDim.x) {
    double v = Join::template start<double>();
    for (int64_t i = threadIdx.x; i < length; i += blockDim.x) v = Join::join(v, value(output, i));
    v = join_block<Join>(v);
    if (threadIdx.x == 0) store(output, v);
  }
}

constexpr unsigned across_lanes = 32, across_rows = 8;

/// The same for elements that lie side by side along the outputs: 32 outputs for a block, eight threads for each.
template <class Join, class Value, class Store>
__global__ void reduce_across(int64_t outputs, int64_t length, Value value, Store store) {
  FASTNTK_SHARED(double, part, [across_rows][across_lanes]);
  const int64_t groups = (outputs + across_lanes - 1) / across_lanes;
  for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
    const int64_t output = group * across_lanes + threadIdx.x;
    double v = Join::template start<double>();
    if (output < outputs)
      for (int64_t i = threadIdx.y; i < length; i += across_rows) v = Join::join(v, value(output, i));
    part[threadIdx.y][threadIdx.x] = v;
    for (unsigned half = across_rows / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.y < half)
        part[threadIdx.y][threadIdx.x] =
            Join::join(part[threadIdx.y][threadIdx.x], part[threadIdx.y + half][threadIdx.x]);
    }
    if (threadIdx.y == 0 && output < outputs) store(output, part[0][threadIdx.x]);
    __syncthreads();  // before the next group overwrites the parts
  }
}

/// Rounds a result to T and puts it to its place.
template <class T>
struct StoreAs {
  T* out;
  __device__ void operator()(int64_t output, double v) const { out[output] = static_cast<T>(v); }
};

/// Where neighbours in memory are.
enum class Neighbours : uint8_t { along, across };

template <class Join, class Value, class Store>
void reduce_pieces(Neighbours neighbours, int64_t outputs, int64_t length, Value value, Store store) {
  if (neighbours == Neighbours::along)
    launch({blocks_for(outputs)}, {threads_for(length)}, reduce_along<Join, Value, Store>, outputs, length, value,
           store);
  else
    launch({blocks_for((outputs + across_lanes - 1) / across_lanes)}, {across_lanes, across_rows},
           reduce_across<Join, Value, Store>, outputs, length, value, store);
}

/// A piece of a long reduction, so that many blocks take part in it; where pieces end is a function of the problem
/// alone.
template <class Join, class Value>
struct Piece {
  Value value;
  Divisor outputs;
  int64_t length, size;
  __device__ double operator()(int64_t item, int64_t i) const {
    const int64_t piece = item / outputs, at = piece * size + i;
    return at < length ? value(item % outputs, at) : Join::template start<double>();
  }
};
struct StorePart {
  double* part;
  __device__ void operator()(int64_t item, double v) const { part[item] = v; }
};
struct LoadPart {
  const double* part;
  int64_t outputs;
  __device__ double operator()(int64_t output, int64_t i) const { return part[i * outputs + output]; }
};

/// store(output, value(output, i) joined over i < length) in float64, for every output.
template <class Join, class Value, class Store>
void reduce(Neighbours neighbours, int64_t outputs, int64_t length, Value value, Store store) {
  if (outputs == 0) return;
  constexpr int64_t piece = 4096;
  if (length < 4 * piece) {
    reduce_pieces<Join>(neighbours, outputs, length, value, store);
    return;
  }
  const int64_t pieces = (length + piece - 1) / piece;
  const Buffer parts(static_cast<size_t>(pieces * outputs) * sizeof(double), device);
  auto* const part = parts.as<double>();
  reduce_pieces<Join>(neighbours, outputs * pieces, piece, Piece<Join, Value>{value, outputs, length, piece},
                      StorePart{part});
  reduce_pieces<Join>(Neighbours::across, outputs, pieces, LoadPart{part, outputs}, store);
}

}  // namespace fastntk::FASTNTK_GPU
