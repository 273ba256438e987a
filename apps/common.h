// What all commands share: common flags, data and models from flags, reports.
#pragma once
#include <CLI/CLI.hpp>
#include <initializer_list>
#include <optional>
#include <string>

#include "datasets/dataset.h"
#include "datasets/part.h"
#include "datasets/samples.h"
#include "engine/device.h"
#include "engine/parse_number.h"
#include "models/checkpoint.h"
#include "training/trainer.h"
#include "unlearn/jacobian.h"
#include "unlearn/report.h"

namespace fastntk::apps {

/// Flags of every command.
struct Common {
  uint64_t seed = 0;
  int threads = 0;
  std::string memory, json, data_folder, convolution = "fast", precision = "float32", device = "cpu";
  bool quiet = false;
};
/// For options that take a whole number from 0 on.
CLI::Validator not_negative();
void add_common(CLI::App& command, Common& common);
/// --device, for commands that run a network.
void add_device_flag(CLI::App& command, Common& common);
/// The device of the flags, which apply_common() has found to be there.
Device device_of(const Common& common);
/// Puts the flags into force. Call first in a command's callback.
void apply_common(const Common& common);
/// "512M", "2G", "1.5GiB" → bytes; 0 for an empty text.
size_t parse_bytes(const std::string& text);

/// A report with command line, settings in force and the machine's kernels filled in; `command` is the subcommand that
/// was parsed.
Report new_report(const CLI::App& command);
/// Writes the report where --json says, if it does.
void finish(const Report& report, const Common& common);

/// Which samples: --data NAME --samples RULES (datasets/split.h), and what becomes of their pixels: --transform TEXT
/// (datasets/transform.h).
struct DataFlags {
  std::string name = "fashion-mnist", rules = "all", transform;
};
/// The flags --data (or --dataset), --samples and --transform; the texts say what the data are.
void add_data_flags(CLI::App& command, DataFlags& flags, const std::string& data, const std::string& samples);
/// All samples if another data set than Fashion-MNIST was named, for which the default rules are, and no rules were (by
/// the option of this name).
void settle_rules(const CLI::App& command, const std::string& option, DataFlags& flags);
/// The transform of the flags, without one that of the model's metadata; written out.
std::string transform_of(const DataFlags& flags, const std::map<std::string, std::string>& metadata);
/// Keeps a transform in a model's metadata, and its normalisation if it has one.
void put_transform(std::map<std::string, std::string>& metadata, const std::string& transform, int64_t channels);
/// Chosen, transformed, and decoded if they are images in files and fit in --memory.
Dataset load_samples(const DataFlags& flags, const Common& common, Part part);
/// Normalised with the mean and deviation that the model was trained with (its metadata), in the model's type.
Samples to_samples(const Dataset& data, const std::map<std::string, std::string>& metadata, DType dtype);
/// The same, normalised when they are asked for.
SampleSource sample_source(const Dataset& data, const std::map<std::string, std::string>& metadata, DType dtype);
void put_normalisation(std::map<std::string, std::string>& metadata, const Normalisation& normalisation);
void put_data(std::map<std::string, std::string>& entries, const std::string& prefix, const DataFlags& flags,
              const Dataset& data);
/// The same in a report, n and the number of classes as numbers.
void put_data(Report& report, const DataFlags& flags, const Dataset& data);

/// The flags of training, with the config's present values as defaults.
struct TrainFlags {
  TrainConfig config;
  std::string schedule = "constant";
};
void add_train_flags(CLI::App& command, TrainFlags& flags);
TrainConfig train_config(const TrainFlags& flags, const Common& common);

/// Options of an architecture, each NAME=VALUE; UsageError for one that is not.
void put_options(ModelConfig& config, const std::vector<std::string>& options);

/// A model file with what its metadata say; `architecture` is needed when it has no configuration of ours.
Checkpoint open_model(const std::string& path, const std::string& architecture);
/// What `fastntk finetune` wrote about itself under `key`; Error naming the file where there is nothing.
const std::string& finetune_entry(const std::map<std::string, std::string>& metadata, const std::string& key,
                                  const std::string& path);
/// The same as a number; Error where it is none.
template <class Number>
Number finetune_number(const std::map<std::string, std::string>& metadata, const std::string& key,
                       const std::string& path) {
  const std::string& text = finetune_entry(metadata, key, path);
  const auto number = parse_number<Number>(text);
  require(number.has_value(), "{}: '{}' in its metadata is not a number: {}", path, text, key);
  return *number;
}
/// The data that the model at `path` was fine-tuned on, by its metadata, and how to load them. Error if their SHA-256
/// is another.
DataFlags finetune_data_flags(const std::map<std::string, std::string>& metadata, const std::string& path);
Dataset load_finetune_data(const std::map<std::string, std::string>& metadata, const std::string& path, Common common);
/// Where fine-tuning started, float64 [P], from the model file at `path`.
Tensor load_theta0(const std::string& path);
/// An Error now, before the work, if one of these files could not be written; those without a name are not asked for.
void check_outputs(std::initializer_list<std::string> paths);
/// UsageError for test samples of classes that the model has not.
void check_test_labels(const Dataset& test, int64_t classes);
/// UsageError for a model that `unlearn` or `forget` wrote.
void check_fine_tuned(const std::map<std::string, std::string>& metadata, const std::string& path);
/// A line that names what fine-tuning had and the rules have not; empty if there is nothing.
std::string beyond_the_objective(const std::map<std::string, std::string>& metadata);
/// Removes the entries whose keys begin so.
void erase_entries(std::map<std::string, std::string>& metadata, const std::string& prefix);
/// An Error unless the images have as many channels as the model takes.
void check_channels(const Dataset& data, const Checkpoint& checkpoint);
/// Inputs for predict, jacobian and ntk: a tensor file (taken as it is), or a data set and rules.
struct InputFlags {
  std::string input;  ///< tensor file
  DataFlags data;
  std::string part = "test";
};
void add_input_flags(CLI::App& command, InputFlags& flags);
/// Where --data, --samples, --transform and --part would say nothing beside --input.
void exclude_data_beside_input(CLI::App& command);
Samples load_inputs(const InputFlags& flags, const Checkpoint& checkpoint, const Common& common);

/// Where each parameter's columns begin, for the metadata of a Jacobian or a kernel.
std::map<std::string, std::string> columns_of(const Subset& subset);
/// An Error now if write_tensor() could not write to `path`.
void check_tensor_output(const std::string& path);
/// Writes one named tensor, as .npy or .safetensors by the ending.
void write_tensor(const std::string& path, const std::string& name, const Tensor& tensor,
                  const std::map<std::string, std::string>& metadata);

// One function per command: adds it to the program.
void add_pretrain(CLI::App& app);
void add_finetune(CLI::App& app);
void add_unlearn(CLI::App& app);
void add_prepare(CLI::App& app);
void add_forget(CLI::App& app);
void add_restore(CLI::App& app);
void add_add(CLI::App& app);
void add_relinearise(CLI::App& app);
void add_verify(CLI::App& app);
void add_report(CLI::App& app);
void add_keygen(CLI::App& app);
void add_evaluate(CLI::App& app);
void add_predict(CLI::App& app);
void add_jacobian(CLI::App& app);
void add_ntk(CLI::App& app);
void add_roofline(CLI::App& app);
void add_info(CLI::App& app);
void add_convert(CLI::App& app);
void add_demo(CLI::App& app);

}  // namespace fastntk::apps
