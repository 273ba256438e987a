// Less memory for more time: a part of the computation that is recorded as one record, which keeps only its inputs.
// docs/tape.md, "Recomputation".
#pragma once
#include "engine/functional.h"

namespace fastntk {

/// f(inputs) as one record. Whenever the linear map is applied, f runs again on a tape of its own, which is then
/// applied and dropped: at any time one such part is in memory (Griewank and Walther, "Revolve", 2000; Chen et al.,
/// "Training deep nets with sublinear memory cost", 2016). Values, tangents and cotangents have the bits that they have
/// without, as long as f computes the same thing every time it is called.
///
/// Every variable that f depends on must be among the inputs; an Error says so where one is not. Per-sample leaves and
/// stacks work as everywhere, and ops that mix samples are refused. When the application is itself recorded (second
/// order), f is recorded in full on the same tape.
Variable recompute(const Function& f, const std::vector<Variable>& inputs);

/// The most bytes that one recomputed part of this tape of per-sample leaves keeps while it is applied; 0 if it has
/// none.
size_t recomputed_bytes(const Tape& tape);

}  // namespace fastntk
