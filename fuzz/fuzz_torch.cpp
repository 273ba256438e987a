#include "engine/torch_file.h"
#include "fuzz/fuzz.h"

// A whole torch file: the archive, the pickle in it, the elements.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fastntk::fuzz::check(
      [&] { fastntk::TorchFile(fastntk::ZipArchive(fastntk::fuzz::bytes_of(data, size), "file.pth")).load(); });
}
