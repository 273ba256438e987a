#include "engine/samples.h"

namespace fastntk::test {

Samples all_samples() {
  Samples all;
  for (const Samples& family : {elementwise_samples(), reduce_samples(), shape_samples()})
    all.insert(all.end(), family.begin(), family.end());
  return all;
}

}  // namespace fastntk::test
