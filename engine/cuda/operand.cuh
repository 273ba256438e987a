// Tensors as kernels see them: pointers into the memory of this device, and where elements lie.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/cpu/strided.h"
#include "engine/cuda/launch.cuh"
#include "engine/device.h"
#include "engine/kernels/scalar.h"
#include "engine/tensor.h"

namespace fastntk::FASTNTK_GPU {

/// The device that this file is being compiled for.
constexpr Device device = Device::FASTNTK_GPU;

/// The first element of a tensor, which must be in the memory of this device and have elements of type T.
template <class T>
const T* elements(const Tensor& t) {
  require(t.device() == device,
          "a kernel of {} was given {} in the memory of {}: all operands of an op must be on one device",
          name_of(device), t.describe(), name_of(t.device()));
  require(t.dtype() == dtype_of<T>(), "a tensor of {} was read as {}", name_of(t.dtype()), name_of(dtype_of<T>()));
  return static_cast<const T*>(t.storage()->data()) + t.offset();
}
template <class T>
T* elements_to_write(Tensor& t) {
  T* const p = const_cast<T*>(elements<T>(t));
  t.storage()->touch();
  return p;
}
/// Null for null.
template <class T>
const T* elements(const Tensor* t) {
  return t ? elements<T>(*t) : nullptr;
}
template <class T>
T* elements_to_write(Tensor* t) {
  return t ? elements_to_write<T>(*t) : nullptr;
}

/// Where element i, counted in row-major order, of a shape lies in each of `Operands` tensors over it.
template <int Operands>
struct Places {
  int axes = 0;
  int64_t extent[max_rank] = {};
  int64_t stride[Operands][max_rank] = {};

  Places(const Shape& shape, const std::array<Shape, Operands>& strides) {
    const cpu::Walk<Operands> walk(shape, strides);
    axes = walk.shape.rank();
    for (int axis = 0; axis < axes; axis++) {
      extent[axis] = walk.shape[axis];
      for (int k = 0; k < Operands; k++) stride[k][axis] = walk.strides[static_cast<size_t>(k)][axis];
    }
  }

  struct Offsets {
    int64_t of[Operands];
  };
  FASTNTK_HOST_DEVICE Offsets operator()(int64_t i) const {
    Offsets at;
    for (int k = 0; k < Operands; k++) at.of[k] = 0;
    for (int axis = axes - 1; axis > 0; axis--) {
      const int64_t next = i / extent[axis], index = i - next * extent[axis];
      for (int k = 0; k < Operands; k++) at.of[k] += index * stride[k][axis];
      i = next;
    }
    for (int k = 0; k < Operands; k++) at.of[k] += i * stride[k][0];
    return at;
  }
};

/// Threads of a block that does one row of `n` elements.
inline unsigned threads_for(int64_t n) {
  return static_cast<unsigned>(std::clamp<int64_t>((n + 31) / 32 * 32, 32, 256));
}
/// Blocks for `items` of them; each takes every so many items. The emulator gains nothing from many.
inline unsigned blocks_for(int64_t items) {
  return static_cast<unsigned>(std::clamp<int64_t>(items, 1, device == Device::emu ? 16 : 1 << 16));
}

template <class F>
__global__ void for_each_kernel(int64_t n, F f) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) f(i);
}
/// f(i) for every i below n, in threads of their own.
template <class F>
void for_each(int64_t n, F f) {
  if (n == 0) return;
  const unsigned threads = threads_for(n);
  launch({blocks_for((n + threads - 1) / threads)}, {threads}, for_each_kernel<F>, n, f);
}

/// The value of one element of a device, on the host.
template <class T>
T read(const T* p) {
  T value;
  device_memory(device).copy_out(&value, p, sizeof value);
  return value;
}

}  // namespace fastntk::FASTNTK_GPU
