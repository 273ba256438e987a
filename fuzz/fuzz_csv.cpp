#include "datasets/image_list.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fastntk::fuzz::check([&] { fastntk::parse_image_list(fastntk::fuzz::text_of(data, size), "list.csv"); });
}
