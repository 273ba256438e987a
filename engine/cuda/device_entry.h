// What the two builds of engine/cuda offer to the rest of the engine.
#pragma once
#include <string>
#include <vector>

namespace fastntk {

class Backend;
class DeviceMemory;

namespace emu {
const Backend& backend();
const DeviceMemory& memory();
}  // namespace emu

namespace cuda {
const Backend& backend();
const DeviceMemory& memory();
/// A sentence, or nothing when there is a GPU with a driver.
std::string reason_unavailable();
/// Name and compute capability of the GPU in use.
std::string model();
/// One line per GPU.
std::vector<std::string> describe();
}  // namespace cuda

}  // namespace fastntk
