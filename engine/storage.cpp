#include "engine/storage.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <bit>
#include <cstdlib>
#include <iterator>
#include <new>
#include <vector>

#include "engine/device.h"
#include "engine/error.h"

#ifdef FASTNTK_EXACT_BLOCKS
#include <sanitizer/asan_interface.h>
#endif

namespace fastntk {
namespace {

// Under FASTNTK_EXACT_BLOCKS the address sanitizer reports what touches a block beyond the bytes asked for, or after it
// was returned to the cache.
void mark_usable([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes, [[maybe_unused]] size_t size) {
#ifdef FASTNTK_EXACT_BLOCKS
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(p) + bytes, size - bytes);
#endif
}

constexpr size_t huge_page = size_t{2} << 20;

// Four buckets to a power of two: at most a quarter of a block is unused.
size_t bucket_size(size_t bytes) {
  if (bytes <= 256) return 256;
  const size_t step = std::bit_floor(bytes - 1) / 4;  // a power of two, at least 64
  return (bytes + step - 1) & ~(step - 1);
}

// Where the blocks of a cache come from.
void* take(Device device, size_t size) {
  if (device != Device::cpu) return device_memory(device).allocate(size);
  const size_t alignment = size >= huge_page ? huge_page : 64;
  void* const p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (p && size >= huge_page) madvise(p, size, MADV_HUGEPAGE);
  return p;
}
void give_back(Device device, void* p) {
  if (device == Device::cpu)
    std::free(p);
  else
    device_memory(device).release(p);
}
// The first `bytes` of a block of `size` may be used from here on.
void mark(Device device, void* p, size_t bytes, size_t size) {
  if (device == Device::cpu)
    mark_usable(p, bytes, size);
  else
    device_memory(device).mark(p, bytes, size);
}

class Cache {
 public:
  explicit Cache(Device device) : device_(device) {}

  void* allocate(size_t bytes) {
    const size_t size = bucket_size(bytes);
    {
      const std::lock_guard lock(mutex_);
      statistics_.live += size;
      if (statistics_.live > statistics_.peak) statistics_.peak = statistics_.live;
      auto& free_list = free_[size];
      if (!free_list.empty()) {
        void* p = free_list.back();
        free_list.pop_back();
        statistics_.cached -= size;
        mark(device_, p, bytes, size);
        return p;
      }
    }
    void* p = take(device_, size);
    if (!p) {
      release();
      p = take(device_, size);
    }
    if (!p) {
      const std::lock_guard lock(mutex_);
      statistics_.live -= size;
      if (device_ == Device::cpu) throw std::bad_alloc();
      fail("the memory of {} has no room for {} bytes beside the {} in use", name_of(device_), size, statistics_.live);
    }
    mark(device_, p, bytes, size);
    return p;
  }

  void deallocate(void* p, size_t bytes) {
    const size_t size = bucket_size(bytes);
    const std::lock_guard lock(mutex_);
    statistics_.live -= size;
    if (device_ == Device::cpu && size >= keep_limit) {
      mark(device_, p, size, size);
      give_back(device_, p);
      return;
    }
    mark(device_, p, 0, size);
    statistics_.cached += size;
    free_[size].push_back(p);
  }

  void release() {
    const std::lock_guard lock(mutex_);
    for (auto& [size, blocks] : free_)
      for (void* p : blocks) {
        mark(device_, p, size, size);
        give_back(device_, p);
      }
    free_.clear();
    statistics_.cached = 0;
  }

  MemoryStatistics statistics() {
    const std::lock_guard lock(mutex_);
    return statistics_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    statistics_.peak = statistics_.live;
  }

 private:
  // Larger blocks of the host go straight back: they are rare, and keeping them would double the peak. Those of a
  // device stay, because to return one waits for all that the device has still to do.
  static constexpr size_t keep_limit = size_t{64} << 20;
  const Device device_;
  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  MemoryStatistics statistics_;
};

// Never destroyed: tensors with static storage duration may outlive any order of destruction.
Cache& cache(Device device) {
  static Cache* const caches[] = {new Cache(Device::cpu), new Cache(Device::emu), new Cache(Device::cuda)};
  static_assert(std::size(caches) == device_count);
  return *caches[static_cast<size_t>(device)];
}

}  // namespace

MemoryStatistics memory_statistics(Device device) { return cache(device).statistics(); }
void reset_peak_memory(Device device) { cache(device).reset_peak(); }
void release_cached_memory(Device device) { cache(device).release(); }

size_t allocated_bytes(size_t bytes) { return bucket_size(bytes); }

size_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

Buffer::Buffer(size_t bytes, Device device) : data_(cache(device).allocate(bytes)), bytes_(bytes), device_(device) {}
Buffer::~Buffer() {
  if (data_) cache(device_).deallocate(data_, bytes_);
}

}  // namespace fastntk
