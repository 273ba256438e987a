#include "fuzz/fuzz.h"
#include "unlearn/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  return fastntk::fuzz::check([&] { const fastntk::Journal journal(file.holding(data, size)); });
}
