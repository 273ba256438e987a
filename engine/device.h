// Devices other than the CPU: which there are, their memory, and the copies to and from it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/storage.h"

namespace fastntk {

/// "cpu", "emu" or "cuda".
const char* name_of(Device device);
/// The device of that name; UsageError naming the three if there is none.
Device parse_device(std::string_view name);
/// Why the device cannot be used here, as a sentence; empty if it can.
std::string reason_unavailable(Device device);
/// Error with that sentence if the device cannot be used.
void require_available(Device device);
/// One line per device for people to read: what it is, or why it cannot be used.
std::vector<std::string> describe_devices();
/// Whose results have bits of their own: name and compute capability of the GPU. Empty of the others.
std::string model_of(Device device);
/// Waits until the device has done all it was asked for, and reports what went wrong meanwhile.
void synchronise(Device device);

/// The memory of a device. All that a device does it does in the order in which it was asked, copies included.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  /// 64-byte aligned; null when there is no room.
  virtual void* allocate(size_t bytes) const = 0;
  virtual void release(void* p) const = 0;
  /// Called when a block of `size` bytes is handed out to hold `bytes`, and with 0 when it is returned to the cache: a
  /// device that looks for mistakes takes note.
  virtual void mark(void*, size_t, size_t) const {}
  /// From the host; when it returns, `from` may be overwritten.
  virtual void copy_in(void* to, const void* from, size_t bytes) const = 0;
  /// To the host; waits for it.
  virtual void copy_out(void* to, const void* from, size_t bytes) const = 0;
  virtual void synchronise() const = 0;
  /// Bytes that allocate() could still give; 0 where no bound is known.
  virtual size_t free_bytes() const = 0;
};
/// The memory of a device that is not the CPU; Error when it cannot be used.
const DeviceMemory& device_memory(Device device);

/// How many parts of a computation on this device may be under way at once: as many as there are threads on the CPU;
/// one on a device, which is a device's width each.
int parts_at_once(Device device);
/// Calls body(i) for i in [0, items): spread over the threads (parallel_for), or for a device one after another.
void for_parts(Device device, int64_t items, const std::function<void(int64_t)>& body);

}  // namespace fastntk
