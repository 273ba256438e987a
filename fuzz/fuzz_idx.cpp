#include "datasets/idx.h"
#include "fuzz/fuzz.h"

// The first byte chooses the number of axes; the rest is the file, plain or gzip.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  if (size == 0) return 0;
  return fastntk::fuzz::check([&] { fastntk::load_idx_file(file.holding(data + 1, size - 1), data[0] % 4); });
}
