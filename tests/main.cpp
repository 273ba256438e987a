#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdio>

#include "engine/error.h"
#include "test_device.h"

int main(int argc, char** argv) {
  constexpr int skipped = 77;
  try {
    if (const std::string reason = fastntk::reason_unavailable(fastntk::test::test_device()); !reason.empty()) {
      std::printf("skipped: the device %s cannot be used: %s\n", fastntk::name_of(fastntk::test::test_device()),
                  reason.c_str());
      return skipped;
    }
  } catch (const fastntk::Error& e) {
    std::printf("FASTNTK_TEST_DEVICE: %s\n", e.what());
    return 2;
  }
  return Catch::Session().run(argc, argv);
}
