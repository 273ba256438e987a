#include <algorithm>

#include "datasets/stl10.h"
#include "fuzz/fuzz.h"

// The first byte is the length of the file of labels, which follows; the rest is the file of images. Either may be
// gzip.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile images, labels;
  if (size == 0) return 0;
  const size_t length = std::min<size_t>(data[0], size - 1);
  return fastntk::fuzz::check([&] {
    fastntk::load_stl10_files(images.holding(data + 1 + length, size - 1 - length), labels.holding(data + 1, length));
  });
}
