#include "engine/device.h"

#include <atomic>

#include "engine/backend.h"
#include "engine/cuda/device_entry.h"
#include "engine/error.h"
#include "engine/parallel.h"

namespace fastntk {
namespace {

std::atomic<const Backend*> cpu_instead{nullptr};

}  // namespace

const char* name_of(Device device) {
  switch (device) {
    case Device::cpu:
      return "cpu";
    case Device::emu:
      return "emu";
    case Device::cuda:
      return "cuda";
  }
  return "?";
}

Device parse_device(std::string_view name) {
  for (const Device device : {Device::cpu, Device::emu, Device::cuda})
    if (name == name_of(device)) return device;
  throw UsageError(
      fmt::format("there is no device '{}': cpu, emu (the kernels of the GPU, run on the CPU) or cuda", name));
}

std::string reason_unavailable(Device device) {
  if (device != Device::cuda) return {};
#ifdef FASTNTK_CUDA
  return cuda::reason_unavailable();
#else
  return "this program was built without CUDA (cmake -D FASTNTK_CUDA=ON builds it, and needs nvcc)";
#endif
}

void require_available(Device device) {
  const std::string reason = reason_unavailable(device);
  require(reason.empty(), "the device {} cannot be used: {}", name_of(device), reason);
}

std::vector<std::string> describe_devices() {
  std::vector<std::string> lines = {"cpu   the host",
                                    "emu   the kernels of the GPU, run on the CPU to test them (slow)"};
  const std::string reason = reason_unavailable(Device::cuda);
  if (!reason.empty()) lines.push_back("cuda  cannot be used: " + reason);
#ifdef FASTNTK_CUDA
  else
    for (const std::string& description : cuda::describe()) lines.push_back("cuda  " + description);
#endif
  return lines;
}

const DeviceMemory& device_memory(Device device) {
  if (device == Device::emu) return emu::memory();
  require(device != Device::cpu, "the memory of the host is not that of a device");
#ifdef FASTNTK_CUDA
  // Asked once: after an error of the GPU memory is still given back, by destructors.
  static const DeviceMemory& of_gpu = (require_available(Device::cuda), cuda::memory());
  return of_gpu;
#else
  require_available(device);
  fail("there is no CUDA here");
#endif
}

std::string model_of([[maybe_unused]] Device device) {
#ifdef FASTNTK_CUDA
  if (device == Device::cuda) return cuda::model();
#endif
  return {};
}

int parts_at_once(Device device) { return device == Device::cpu ? thread_count() : 1; }

void for_parts(Device device, int64_t items, const std::function<void(int64_t)>& body) {
  if (device == Device::cpu) return parallel_for(items, body);
  for (int64_t i = 0; i < items; i++) body(i);
}

void synchronise(Device device) {
  if (device != Device::cpu) device_memory(device).synchronise();
}

void set_cpu_backend(const Backend* other) { cpu_instead = other; }

const Backend& backend(Device device) {
  if (device == Device::cpu) {
    const Backend* const other = cpu_instead.load(std::memory_order_acquire);
    return other ? *other : cpu_backend();
  }
  if (device == Device::emu) return emu::backend();
#ifdef FASTNTK_CUDA
  return cuda::backend();
#else
  fail("there is no CUDA here");
#endif
}

}  // namespace fastntk
