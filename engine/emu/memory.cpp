// The memory of the emulator is the host's. A block handed out holds NaNs, so that what a kernel reads before it has
// been written, or behind its end, shows; under the address sanitizer what lies behind the bytes asked for is out of
// bounds.
#include <cstdlib>
#include <cstring>

#include "engine/cuda/device_entry.h"
#include "engine/device.h"
#include "engine/emu/sanitizers.h"

namespace fastntk::emu {
namespace {

class EmulatedMemory final : public DeviceMemory {
 public:
  void* allocate(size_t bytes) const override { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
  void release(void* p) const override { std::free(p); }
  void mark(void* p, [[maybe_unused]] size_t bytes, size_t size) const override {
    FASTNTK_ASAN(ASAN_UNPOISON_MEMORY_REGION(p, size));
    std::memset(p, 0xFF, size);
    FASTNTK_ASAN(ASAN_POISON_MEMORY_REGION(static_cast<char*>(p) + bytes, size - bytes));
  }
  void copy_in(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
  void copy_out(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
  void synchronise() const override {}
  size_t free_bytes() const override { return 0; }
};

}  // namespace

const DeviceMemory& memory() {
  static const EmulatedMemory instance;
  return instance;
}

}  // namespace fastntk::emu
