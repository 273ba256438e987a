#include "engine/torch_file.h"
#include "fuzz/fuzz.h"

// The pickle of a torch file, without the archive around it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return fastntk::fuzz::check([&] { fastntk::parse_torch_pickle(fastntk::fuzz::bytes_of(data, size), "data.pkl"); });
}
