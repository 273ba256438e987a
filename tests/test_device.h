// The device that tests tagged [device] run on: the emulator, or the one that FASTNTK_TEST_DEVICE names. main.cpp ends
// the program with code 77 where that cannot be used, which ctest counts as skipped.
#pragma once
#include <cstdlib>

#include "engine/device.h"

namespace fastntk::test {

inline Device test_device() {
  const char* const name = std::getenv("FASTNTK_TEST_DEVICE");
  return name ? parse_device(name) : Device::emu;
}

}  // namespace fastntk::test
