// What the sources of Prepared share.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/safetensors.h"
#include "training/loss.h"
#include "unlearn/rows.h"

namespace fastntk {

/// How far rows that are computed again may be from those in a file, of their norm: other kernel sets sum float32 in
/// another order.
inline constexpr double rows_tolerance = 1e-5;

/// Where each id stands.
std::unordered_map<int64_t, int64_t> places_of(const std::vector<int64_t>& ids);
/// "3, 5, 8 and 12 more"
std::string listed(const std::vector<int64_t>& ids);
/// Hashes one a line, each line with its end.
std::string joined(const std::vector<std::string>& hashes);
/// The tensor of this name; Error naming the file if there is none.
const Tensor& tensor_in(const SafeTensors& file, const char* name, const std::string& path);
/// UsageError naming a label that is none of 0 … classes − 1.
void check_labels(const Tensor& labels, int64_t classes);
/// Error naming the samples with these ids, of which none may be missing among those that a caller gave.
void check_given(const std::vector<int64_t>& missing);
/// Float64 tensors [n₁, …], [n₂, …] one below the other; undefined if there is no row.
Tensor stacked(const std::vector<Tensor>& parts);
/// f(θ*) + J v, [n, C].
Tensor linear_logits(const LinearisedSet& set, const Tensor& v);

}  // namespace fastntk
