// Dropout and stochastic depth, as functions of the random numbers they use.
#pragma once
#include "engine/op.h"
#include "engine/random.h"

namespace fastntk {

/// Each element of x [N, …] is set to zero with probability `rate`, in [0, 1), and multiplied by 1 / (1 − rate)
/// otherwise. Element i of sample n (in row-major order) falls where random.uniform_float((first_sample + n) · elements
/// of a sample + i) < rate: it depends neither on the threads nor on how samples are put into batches.
/// Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.
Variable dropout(const Variable& x, double rate, const Random& random, int64_t first_sample = 0);
/// The same for whole samples: sample n falls where random.uniform_float(first_sample + n) < rate. With x the branch of
/// a residual block this is stochastic depth: Huang et al., "Deep networks with stochastic depth", ECCV 2016.
Variable drop_path(const Variable& x, double rate, const Random& random, int64_t first_sample = 0);

}  // namespace fastntk
