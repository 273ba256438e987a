// Memory: reference-counted blocks from a cache that counts what it hands out.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace fastntk {

/// Where a tensor's elements live. `cuda` is an NVIDIA GPU; `emu` runs the same kernels on the CPU (docs/gpu.md).
/// Nothing outside the backends may assume host memory.
enum class Device : uint8_t { cpu, emu, cuda };
constexpr int device_count = 3;

/// What the counting cache has handed out (live), the most it ever had out (peak) and what it keeps for reuse (cached),
/// in bytes, of one device.
struct MemoryStatistics {
  size_t live = 0, peak = 0, cached = 0;
};
MemoryStatistics memory_statistics(Device device = Device::cpu);
/// Starts a new measurement: peak becomes live.
void reset_peak_memory(Device device = Device::cpu);
/// Gives cached blocks back to the operating system, or to the driver of the device.
void release_cached_memory(Device device = Device::cpu);
/// The operating system's high-water mark of this process's resident memory, in bytes.
size_t peak_resident_bytes();

/// What the cache takes, and counts, for a block of this many bytes: at most a quarter more.
size_t allocated_bytes(size_t bytes);

/// Raw bytes, 64-byte aligned, uninitialised, counted by memory_statistics(). For scratch space inside kernels. A block
/// of a device may be used again as soon as it is returned, because all that a device does, it does in order.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes, Device device = Device::cpu);
  ~Buffer();
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), device_(other.device_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_), std::swap(device_, other.device_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Device device_ = Device::cpu;
};

/// The block behind one or more tensors. `version` rises with every mutable access, so that what was derived from the
/// contents (packed or transformed weights) knows when it is stale.
class Storage {
 public:
  Storage(size_t bytes, Device device) : buffer_(bytes, device) {}
  void* data() const { return buffer_.as<void>(); }
  size_t bytes() const { return buffer_.bytes(); }
  Device device() const { return buffer_.device(); }
  uint64_t version() const { return version_.load(std::memory_order_acquire); }
  void touch() { version_.fetch_add(1, std::memory_order_acq_rel); }

  /// Returns what `make()` made for `key` from the present contents; makes it again after the contents changed. Threads
  /// that come at once may each make it (make() may itself wait for threads, so no lock is held then); all get the same
  /// one.
  template <class T, class Make>
  std::shared_ptr<const T> derived(const std::string& key, Make&& make) {
    const uint64_t now = version();
    {
      const std::lock_guard lock(mutex_);
      const auto found = derived_.find(key);
      if (found != derived_.end() && found->second.version == now)
        return std::static_pointer_cast<const T>(found->second.value);
    }
    auto made = std::make_shared<const T>(make());
    const std::lock_guard lock(mutex_);
    auto& entry = derived_[key];
    if (!entry.value || entry.version != now) entry = {now, std::move(made)};
    return std::static_pointer_cast<const T>(entry.value);
  }

 private:
  struct Derived {
    uint64_t version = 0;
    std::shared_ptr<const void> value;
  };
  Buffer buffer_;
  std::atomic<uint64_t> version_{0};
  std::mutex mutex_;
  std::map<std::string, Derived> derived_;
};

}  // namespace fastntk
