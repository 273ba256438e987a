#include "apps/state_data.h"

#include <unordered_set>

namespace fastntk::apps {

void add_state_data_flags(CLI::App& command, StateData& flags) {
  command.add_option("--data,--dataset", flags.name,
                     "data set that has the samples, under their ids; default: that of fine-tuning");
  command.add_option("--samples", flags.rules, "which samples of it to look among")->capture_default_str();
}

DataFlags data_flags_of(const StateData& flags, const Prepared& state) {
  DataFlags out = finetune_data_flags(state.checkpoint().metadata, state.folder() + "/model.safetensors");
  if (!flags.name.empty()) out.name = flags.name;
  out.rules = flags.rules;
  return out;
}

SampleSource samples_at(const StateData& flags, const Common& common, const Prepared& state,
                        const Positions& positions) {
  std::unordered_set<int64_t> wanted;
  for (const int64_t i : positions) wanted.insert(state.ids()[static_cast<size_t>(i)]);
  const Dataset given = load_samples(data_flags_of(flags, state), common, Part::train);
  std::vector<int64_t> found;
  for (size_t i = 0; i < given.ids().size(); i++)
    if (wanted.contains(given.ids()[i])) found.push_back(static_cast<int64_t>(i));
  const Checkpoint& checkpoint = state.checkpoint();
  return sample_source(given.subset(found), checkpoint.metadata, checkpoint.model->dtype());
}

SampleSource samples_of(const StateData& flags, const Common& common, const Prepared& state) {
  const Checkpoint& checkpoint = state.checkpoint();
  return sample_source(load_samples(data_flags_of(flags, state), common, Part::train), checkpoint.metadata,
                       checkpoint.model->dtype());
}

}  // namespace fastntk::apps
