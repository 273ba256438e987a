#include "fuzz/fuzz.h"
#include "unlearn/record_file.h"
#include "unlearn/record_page.h"

// As verify and sign read it, and as a page.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fastntk;
  const std::string text(fuzz::text_of(data, size));
  fuzz::check([&] {
    const RecordFile record = parse_record(text, "input");
    if (!first_difference(record.result, record.result)) return;
    std::abort();
  });
  return fuzz::check([&] { record_page(text, "input"); });
}
