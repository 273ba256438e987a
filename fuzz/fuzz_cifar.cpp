#include "datasets/cifar.h"
#include "fuzz/fuzz.h"

// The first byte chooses between CIFAR-10 and CIFAR-100; the rest is the file, plain or gzip.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fastntk::fuzz::MemoryFile file;
  if (size == 0) return 0;
  const fastntk::CifarLabels ten{.bytes = 1, .which = 0, .classes = 10},
      hundred{.bytes = 2, .which = 1, .classes = 100};
  return fastntk::fuzz::check(
      [&] { fastntk::load_cifar_files("cifar", {file.holding(data + 1, size - 1)}, data[0] % 2 ? hundred : ten); });
}
