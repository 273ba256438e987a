// Tensors as kernels see them: pointers into the memory of this device, and where elements lie.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

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

/// A divisor that is known before the launch. Numerators of 0 and more; those below 2³¹ are divided by a product and a
/// shift (Granlund and Montgomery, Division by invariant integers, 1994): GPUs have no instruction that divides
/// integers.
class Divisor {
 public:
  Divisor(int64_t divisor = 1) : divisor_(divisor) {  // NOLINT: numbers are divisors
    while (shift_ < 31 && int64_t{1} << shift_ < divisor) shift_++;
    if (divisor > 0 && divisor <= limit)
      magic_ = static_cast<uint32_t>(
          (((uint64_t{1} << shift_) - static_cast<uint64_t>(divisor)) << 32) / static_cast<uint64_t>(divisor) + 1);
  }
  FASTNTK_HOST_DEVICE int64_t value() const { return divisor_; }

  FASTNTK_HOST_DEVICE friend int64_t operator/(int64_t n, const Divisor& d) {
    if (n >= limit) return n / d.divisor_;
    const auto m = static_cast<uint32_t>(n);
    return (static_cast<uint32_t>(uint64_t{m} * d.magic_ >> 32) + m) >> d.shift_;
  }
  FASTNTK_HOST_DEVICE friend int64_t operator%(int64_t n, const Divisor& d) { return n - n / d * d.divisor_; }

 private:
  static constexpr int64_t limit = int64_t{1} << 31;
  int64_t divisor_;
  uint32_t magic_ = 0, shift_ = 0;  // of a divisor beyond the limit: the quotients are 0
};

/// Where element i, counted in row-major order, of a shape lies in each of `Operands` tensors over it.
template <int Operands>
struct Places {
  int axes = 0;
  Divisor extent[max_rank] = {};
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
      const int64_t next = i / extent[axis], index = i - next * extent[axis].value();
      for (int k = 0; k < Operands; k++) at.of[k] += index * stride[k][axis];
      i = next;
    }
    for (int k = 0; k < Operands; k++) at.of[k] += i * stride[k][0];
    return at;
  }
};

/// Elements that are loaded or stored at once.
template <class T, int width>
struct alignas(sizeof(T) * width) Pack {
  T of[width];
};

/// Elements that 16 bytes hold, the most that one instruction of a GPU loads.
template <class T>
constexpr int pack_width = 16 / sizeof(T);

/// The first `count` elements of a pack from there on, and zeros instead of the others. `aligned`: to a pack.
template <class T>
__device__ Pack<T, pack_width<T>> load_pack(const T* from, int64_t count, bool aligned) {
  if (aligned && count >= pack_width<T>) return *reinterpret_cast<const Pack<T, pack_width<T>>*>(from);
  Pack<T, pack_width<T>> pack{};
  for (int i = 0; i < pack_width<T>; i++)
    if (i < count) pack.of[i] = from[i];
  return pack;
}
/// The reverse.
template <class T>
__device__ void store_pack(T* to, const Pack<T, pack_width<T>>& pack, int64_t count, bool aligned) {
  if (aligned && count >= pack_width<T>) {
    *reinterpret_cast<Pack<T, pack_width<T>>*>(to) = pack;
    return;
  }
  for (int i = 0; i < pack_width<T>; i++)
    if (i < count) to[i] = pack.of[i];
}
template <class T, int width = pack_width<T>>
bool aligned_to_packs(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Pack<T, width>) == 0;
}

/// An extent or a stride in 32 bits, as registers and cuBLAS have it.
inline int narrow(int64_t n) {
  require(n <= std::numeric_limits<int>::max(), "an extent or a stride of {} on a GPU: at most {}", n,
          std::numeric_limits<int>::max());
  return static_cast<int>(n);
}

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
