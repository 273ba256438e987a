// What a computation asks of the kernel families: launches, operations and bytes, counted while the CPU does it.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "engine/backend.h"

namespace fastntk {

struct KernelWork {
  int64_t launches = 0;
  /// Additions, multiplications, divisions, comparisons and elementary functions, one each; a convolution's as it is
  /// defined, whatever algorithm computes it.
  double flops = 0;
  /// Every operand read once and every result written once; an operand that is repeated along an axis, once.
  double bytes = 0;
};

/// While one exists, what the CPU's backend is asked for, by any thread, is counted by family. There is one at a time.
class WorkCounter {
 public:
  WorkCounter();
  ~WorkCounter();
  WorkCounter(const WorkCounter&) = delete;
  WorkCounter& operator=(const WorkCounter&) = delete;
  /// By family, e.g. "gemm", "convolution, input gradient".
  std::map<std::string, KernelWork> work() const;
};

}  // namespace fastntk
