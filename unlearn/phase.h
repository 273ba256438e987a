// Time and memory of the parts of a method.
#pragma once
#include <cstddef>
#include <string>
#include <utility>

#include "engine/progress.h"
#include "engine/storage.h"

namespace fastntk {

/// Time and memory of one part of a method. peak_bytes is the high-water mark of the counting allocator during it.
struct Phase {
  std::string name;
  double seconds = 0;
  size_t peak_bytes = 0;
};

/// Runs f() and measures it. Phases do not nest: each one starts the high-water mark anew.
template <class F>
Phase measure(std::string name, F&& f) {
  reset_peak_memory();
  const Stopwatch clock;
  std::forward<F>(f)();
  return {std::move(name), clock.seconds(), memory_statistics().peak};
}

}  // namespace fastntk
