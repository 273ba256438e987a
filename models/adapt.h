// Parameters that are added to a model for fine-tuning: prompts, low-rank factors, adapters. What is added stands in
// the model's configuration, as options of its architecture, so that a saved model rebuilds itself. The additions start
// so that all but prompt tokens leave the model's outputs as they are, and are drawn from the seed.
#pragma once
#include "models/peft.h"
#include "models/registry.h"

namespace fastntk {

/// The same model with `count` tuned tokens at its input or, if deep, at every block ("Visual prompt tuning").
/// UsageError when the architecture has no such option, as in all functions here.
Model add_prompts(const Model& model, int64_t count, bool deep, uint64_t seed);
/// With a tuned frame of this many pixels added to its images.
Model add_prompt_frame(const Model& model, int64_t width, uint64_t seed);
/// With low-rank factors beside the projections of attention; alpha = rank.
Model add_lora(const Model& model, int64_t rank, uint64_t seed);
/// With an adapter of this width in every block.
Model add_adapters(const Model& model, int64_t width, uint64_t seed);

/// The same model with what the parts of `specification` name (models/peft.h) and it does not have yet: prompt and
/// prompt-deep (10 tokens unless a number says otherwise), prompt-frame (2 pixels), lora (rank 4), adapter (width 16).
/// UsageError when it has the same of another size.
Model adapt(const Model& model, const std::string& specification, uint64_t seed);

}  // namespace fastntk
