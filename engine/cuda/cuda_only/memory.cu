// The GPU: the one stream of this program, memory, pinned staging for copies from the host, and what to say of devices.
#include <cstring>
#include <mutex>

#include "engine/cuda/device_entry.h"
#include "engine/cuda/launch.cuh"
#include "engine/device.h"

namespace fastntk::cuda {

void check(cudaError_t status, const char* what) {
  require(status == cudaSuccess, "{} failed: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

cudaStream_t stream() {
  static const cudaStream_t instance = [] {
    cudaStream_t s = nullptr;
    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream");
    return s;
  }();
  return instance;
}

namespace {

/// Host memory that the GPU reads by itself: a copy goes through one of two halves while the other is being filled.
class Staging {
 public:
  Staging() {
    for (Half& half : halves_) {
      check(cudaMallocHost(&half.memory, bytes), "allocating pinned memory");
      check(cudaEventCreateWithFlags(&half.read, cudaEventDisableTiming), "making an event");
    }
  }
  void copy_in(void* to, const void* from, size_t count) {
    const std::lock_guard lock(mutex_);
    for (size_t at = 0; at < count; at += bytes) {
      Half& half = halves_[next_++ % 2];
      const size_t some = count - at < bytes ? count - at : bytes;
      check(cudaEventSynchronize(half.read), "waiting for a copy to the GPU");
      std::memcpy(half.memory, static_cast<const char*>(from) + at, some);
      check(cudaMemcpyAsync(static_cast<char*>(to) + at, half.memory, some, cudaMemcpyHostToDevice, stream()),
            "a copy to the GPU");
      check(cudaEventRecord(half.read, stream()), "recording an event");
    }
  }

 private:
  static constexpr size_t bytes = size_t{8} << 20;
  struct Half {
    void* memory = nullptr;
    cudaEvent_t read = nullptr;
  };
  std::mutex mutex_;
  Half halves_[2];
  size_t next_ = 0;
};

class CudaMemory final : public DeviceMemory {
 public:
  void* allocate(size_t bytes) const override {
    void* p = nullptr;
    const cudaError_t status = cudaMalloc(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();  // or the next launch would report it
      return nullptr;
    }
    check(status, "allocating memory of the GPU");
    return p;
  }
  void release(void* p) const override { (void)cudaFree(p); }
  void copy_in(void* to, const void* from, size_t bytes) const override {
    // Never destroyed: it may be used until the program ends.
    static Staging* const staging = new Staging;
    staging->copy_in(to, from, bytes);
  }
  void copy_out(void* to, const void* from, size_t bytes) const override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream()), "a copy from the GPU");
    synchronise();
  }
  void synchronise() const override { check(cudaStreamSynchronize(stream()), "work of the GPU"); }
  size_t free_bytes() const override {
    size_t free = 0, all = 0;
    check(cudaMemGetInfo(&free, &all), "asking a GPU for its free memory");
    return free + memory_statistics(Device::cuda).cached;
  }
};

}  // namespace

const DeviceMemory& memory() {
  static const CudaMemory instance;
  return instance;
}

std::string reason_unavailable() {
  int count = 0;  // not written on failure
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return {};
  (void)cudaGetLastError();
  if (status == cudaSuccess || status == cudaErrorNoDevice) return "there is no NVIDIA GPU";
  if (status == cudaErrorInsufficientDriver) return "there is no NVIDIA driver, or one too old for this program";
  return fmt::format("the CUDA runtime says: {} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
}

namespace {

cudaDeviceProp properties_of(int gpu) {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, gpu), "asking a GPU what it is");
  return p;
}

}  // namespace

std::string model() {
  int gpu = 0;
  check(cudaGetDevice(&gpu), "asking which GPU is in use");
  const cudaDeviceProp p = properties_of(gpu);
  return fmt::format("{} {}.{}", p.name, p.major, p.minor);
}

std::vector<std::string> describe() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "counting GPUs");
  std::vector<std::string> lines;
  for (int i = 0; i < count; i++) {
    const cudaDeviceProp p = properties_of(i);
    lines.push_back(fmt::format("GPU {}: {}, {:.1f} GiB, {} multiprocessors, compute capability {}.{}", i, p.name,
                                static_cast<double>(p.totalGlobalMem) / (1 << 30), p.multiProcessorCount, p.major,
                                p.minor));
  }
  return lines;
}

}  // namespace fastntk::cuda
