#include "fuzz/fuzz.h"
#include "unlearn/state_files.h"

// The first byte is the version of the format.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  if (size == 0) return 0;
  return fastntk::fuzz::check([&] { fastntk::read_manifest(file.holding(data + 1, size - 1), data[0]); });
}
