#include "engine/npy.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  return fastntk::fuzz::check([&] { fastntk::load_npy(file.holding(data, size)); });
}
