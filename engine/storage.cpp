#include "engine/storage.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <bit>
#include <cstdlib>
#include <new>
#include <vector>

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

class Cache {
 public:
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
        mark_usable(p, bytes, size);
        return p;
      }
    }
    const size_t alignment = size >= huge_page ? huge_page : 64;
    void* p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (!p) {
      release();
      p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    }
    if (!p) {
      const std::lock_guard lock(mutex_);
      statistics_.live -= size;
      throw std::bad_alloc();
    }
    if (size >= huge_page) madvise(p, size, MADV_HUGEPAGE);
    mark_usable(p, bytes, size);
    return p;
  }

  void deallocate(void* p, size_t bytes) {
    const size_t size = bucket_size(bytes);
    const std::lock_guard lock(mutex_);
    statistics_.live -= size;
    if (size >= keep_limit) {
      mark_usable(p, size, size);
      std::free(p);
      return;
    }
    mark_usable(p, 0, size);
    statistics_.cached += size;
    free_[size].push_back(p);
  }

  void release() {
    const std::lock_guard lock(mutex_);
    for (auto& [size, blocks] : free_)
      for (void* p : blocks) {
        mark_usable(p, size, size);
        std::free(p);
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
  // Larger blocks go straight back: they are rare, and keeping them would double the peak.
  static constexpr size_t keep_limit = size_t{64} << 20;
  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  MemoryStatistics statistics_;
};

// Never destroyed: tensors with static storage duration may outlive any order of destruction.
Cache& cache() {
  static Cache* const instance = new Cache;
  return *instance;
}

}  // namespace

MemoryStatistics memory_statistics() { return cache().statistics(); }
void reset_peak_memory() { cache().reset_peak(); }
void release_cached_memory() { cache().release(); }

size_t allocated_bytes(size_t bytes) { return bucket_size(bytes); }

size_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

Buffer::Buffer(size_t bytes) : data_(cache().allocate(bytes)), bytes_(bytes) {}
Buffer::~Buffer() {
  if (data_) cache().deallocate(data_, bytes_);
}

}  // namespace fastntk
