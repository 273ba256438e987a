#include "fuzz/fuzz.h"
#include "unlearn/state_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  return fastntk::fuzz::check([&] { fastntk::StateTable::read(file.holding(data, size)); });
}
