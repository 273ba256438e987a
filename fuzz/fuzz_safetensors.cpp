#include "engine/safetensors.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  return fastntk::fuzz::check([&] { fastntk::SafeTensors::load(file.holding(data, size)); });
}
