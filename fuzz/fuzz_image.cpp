#include "datasets/image_file.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fastntk::fuzz::check([&] { fastntk::decode_image(fastntk::fuzz::bytes_of(data, size), "image"); });
}
