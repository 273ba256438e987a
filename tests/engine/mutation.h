// A wrapper around any op that spoils one term of its linear map, to see whether the op tests notice.
#pragma once
#include <memory>

#include "engine/samples.h"
#include "engine/tape.h"

namespace fastntk::test {

/// The term of one input in the jvp or the vjp, multiplied by a factor: −1 is a wrong sign, 0 a term that was dropped.
struct Mutation {
  enum class Map { jvp, vjp } map = Map::jvp;
  size_t input = 0;
  double factor = 1;
};

/// The sample with its op's records mutated after each recording. Forward values stay as they are.
Sample mutated(Sample sample, const Mutation& mutation);

}  // namespace fastntk::test
