#include "engine/samples.h"

namespace fastntk::test {

Samples all_samples() {
  Samples all;
  for (const Samples& family : {
           elementwise_samples(),
           activation_samples(),
           select_samples(),
           reduce_samples(),
           shape_samples(),
           linear_samples(),
           softmax_samples(),
           index_samples(),
           loss_samples(),
           pool_samples(),
           convolution_samples(),
           normalisation_samples(),
           layer_norm_samples(),
           attention_samples(),
           resize_samples(),
           rearrangement_samples(),
           statistics_samples(),
           einsum_samples(),
       })
    all.insert(all.end(), family.begin(), family.end());
  return all;
}

}  // namespace fastntk::test
