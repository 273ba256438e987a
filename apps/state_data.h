// The samples of a prepared state, from wherever they are now.
#pragma once
#include <string>

#include "apps/common.h"
#include "unlearn/prepared.h"

namespace fastntk::apps {

/// Where to look for them: a data set, by default that of fine-tuning, and rules.
struct StateData {
  std::string name, rules = "all";
};
void add_state_data_flags(CLI::App& command, StateData& flags);

/// The flags of a data set that goes with the state: name, rules and the transform of fine-tuning.
DataFlags data_flags_of(const StateData& flags, const Prepared& state);
/// Those samples of the data set that stand at these positions of the state, as far as they are there; what else it has
/// is never looked at.
SampleSource samples_at(const StateData& flags, const Common& common, const Prepared& state,
                        const Positions& positions);

/// All samples that the flags name.
SampleSource samples_of(const StateData& flags, const Common& common, const Prepared& state);

}  // namespace fastntk::apps
