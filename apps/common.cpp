#include "apps/common.h"

#include <cmath>

#include "datasets/registry.h"
#include "datasets/split.h"
#include "datasets/tensor_file.h"
#include "engine/blas.h"
#include "engine/cpu/dispatch.h"
#include "engine/file.h"
#include "engine/npy.h"
#include "engine/ops/convolution.h"
#include "engine/parallel.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "engine/safetensors.h"

namespace fastntk::apps {
namespace {

std::string join(const std::vector<double>& numbers) {
  std::string s;
  for (const double x : numbers) s += (s.empty() ? "" : ",") + fmt::format("{:.17g}", x);
  return s;
}

std::vector<double> numbers_of(const std::string& text, const std::string& what) {
  std::vector<double> out;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    const auto value = parse_number<double>(std::string_view(text).substr(at, end - at));
    require(value.has_value(), "{} must be numbers separated by commas, got '{}'", what, text);
    out.push_back(*value);
    at = end + 1;
  }
  return out;
}

Normalisation normalisation_of(const Dataset& data, const std::map<std::string, std::string>& metadata) {
  const auto mean = metadata.find("normalisation.mean"), stddev = metadata.find("normalisation.stddev");
  if (mean == metadata.end() || stddev == metadata.end()) return Normalisation::identity(data.channels());
  return {numbers_of(mean->second, "normalisation.mean"), numbers_of(stddev->second, "normalisation.stddev")};
}

}  // namespace

CLI::Validator not_negative() {
  return CLI::Validator(
      [](const std::string& text) {
        return parse_number<uint64_t>(text) ? std::string() : "a whole number from 0 on was expected, got " + text;
      },
      "", "not negative");
}

void add_common(CLI::App& command, Common& c) {
  command.add_option("--seed", c.seed, "seed of everything random")->check(not_negative())->capture_default_str();
  command.add_option("--threads", c.threads, "threads; 0: as many as there are processors")->capture_default_str();
  command.add_option(
      "--memory", c.memory,
      "bytes, e.g. 512M or 2G: for all that `prepare` and `ntk` do; elsewhere for Jacobian sweeps beside "
      "their result, and for decoded images, which are decoded anew where they need more. Default: no "
      "limit");
  command.add_option("--conv", c.convolution, "convolutions: fast (Winograd where it applies, about 1e-5) or exact")
      ->check(CLI::IsMember({"fast", "exact"}))
      ->capture_default_str();
  command
      .add_option(
          "--precision", c.precision,
          "of products of layers with their weights: float32; bf16 (linear layers on a CPU with AVX512_BF16: "
          "operands rounded to 8 bits of mantissa, sums in float32) or tf32 (on a GPU, convolutions too: to 11)")
      ->check(CLI::IsMember({"float32", "bf16", "tf32"}))
      ->capture_default_str();
  command.add_option(
      "--data-folder", c.data_folder,
      "folder with the data set's files; default: $FASTNTK_DATA, ~/.local/share/fastntk, /usr/share/datasets");
  command.add_option("--json", c.json, "write the numbers of this run to this file as JSON (docs/report-format.md)");
  command.add_flag("--quiet", c.quiet, "no progress lines");
}

void add_device_flag(CLI::App& command, Common& c) {
  command
      .add_option("--device", c.device,
                  "where the network runs and its rows are multiplied: cpu, cuda, or emu, the GPU's kernels run on the "
                  "CPU to test them. With another than cpu, --memory bounds the sweeps' memory there")
      ->capture_default_str();
}

Device device_of(const Common& c) { return parse_device(c.device); }

void apply_common(const Common& c) {
  require_available(device_of(c));
  require_usage(c.threads >= 0, "--threads must be 0 or more, got {}", c.threads);
  if (c.threads) set_thread_count(c.threads);
  check_outputs({c.json});
  parse_bytes(c.memory);
  set_convolution_algorithm(c.convolution == "exact" ? ConvolutionAlgorithm::exact : ConvolutionAlgorithm::fast);
  const Precision precision = parse_precision(c.precision);
  const Device device = device_of(c);
  require_usage(precision != Precision::bf16 || device == Device::cpu, "--precision bf16 is for --device cpu, not {}",
                name_of(device));
  require_usage(precision != Precision::tf32 || device != Device::cpu, "--precision tf32 is for --device cuda or emu");
  set_linear_precision(precision);
  Progress::set_quiet(c.quiet);
}

size_t parse_bytes(const std::string& text) {
  if (text.empty()) return 0;
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  std::string unit = text.substr(used);
  for (const char* const tail : {"iB", "B"})
    if (!unit.empty() && unit.ends_with(tail)) {
      unit.resize(unit.size() - std::string(tail).size());
      break;
    }
  const std::string units = "KMGT";
  const size_t power = unit.empty() ? 0 : units.find(unit) + 1;
  const double bytes = value * std::pow(1024.0, static_cast<double>(power));
  require_usage(used > 0 && (unit.empty() || (unit.size() == 1 && power > 0)) && bytes >= 1 && bytes < 0x1p63,
                "an amount of memory is a number with K, M, G or T (of 1024), at least one byte, got '{}'", text);
  return static_cast<size_t>(bytes);
}

Report new_report(const CLI::App& command) {
  Report report;
  report.command = {"fastntk", command.get_name()};
  for (const CLI::Option* const option : command.get_options()) {
    const std::string name = option->get_name();
    if (name == "--help" || name == "--json") continue;
    if (option->count())
      for (const std::string& value : option->results()) {
        if (!option->get_positional()) report.command.push_back(name);
        if (option->get_expected_max() > 0) report.command.push_back(value);
      }
    std::string value = option->get_default_str();
    if (option->count()) {
      value.clear();
      for (const std::string& v : option->results()) value += (value.empty() ? "" : " ") + v;
    }
    report.config[name.substr(name.find_first_not_of('-'))] = value;
  }
  report.config["threads"] = std::to_string(thread_count());
  report.config["isa"] = cpu::name_of(cpu::isa());
  report.config["blas"] = blas_version() + " " + blas_kernel_set();
  return report;
}

void finish(const Report& report, const Common& common) {
  if (!common.json.empty()) report.write_json(common.json);
}

void add_data_flags(CLI::App& command, DataFlags& flags, const std::string& data, const std::string& samples) {
  command.add_option("--data,--dataset", flags.name, data + ": a name or FORMAT:FILES (fastntk info lists them)")
      ->capture_default_str();
  command.add_option("--samples", flags.rules, samples)->capture_default_str();
  command.add_option("--transform", flags.transform,
                     "of the images: steps such as resize:256,crop:224,normalise:imagenet, or a preset such as "
                     "torchvision/resnet50-v1; default: what the model file says");
}

void settle_rules(const CLI::App& command, const std::string& option, DataFlags& flags) {
  if (flags.name != "fashion-mnist" && command.count(option) == 0) flags.rules = "all";
}

std::string transform_of(const DataFlags& flags, const std::map<std::string, std::string>& metadata) {
  if (!flags.transform.empty()) return Transform::parse(flags.transform).str();
  const auto stored = metadata.find("transform");
  return stored == metadata.end() ? "" : Transform::parse(stored->second).str();
}

void put_transform(std::map<std::string, std::string>& metadata, const std::string& transform, int64_t channels) {
  if (transform.empty()) return;
  metadata["transform"] = transform;
  if (const auto n = Transform::parse(transform).normalisation(channels)) put_normalisation(metadata, *n);
}

Dataset load_samples(const DataFlags& flags, const Common& common, Part part) {
  Dataset data = Split::parse(flags.rules)
                     .select(load_dataset(flags.name, common.data_folder, part), common.seed)
                     .transformed(Transform::parse(flags.transform));
  data.decode_within(parse_bytes(common.memory));
  return data;
}

void put_normalisation(std::map<std::string, std::string>& metadata, const Normalisation& n) {
  metadata["normalisation.mean"] = join(n.mean);
  metadata["normalisation.stddev"] = join(n.stddev);
}

void put_data(std::map<std::string, std::string>& entries, const std::string& prefix, const DataFlags& flags,
              const Dataset& data) {
  entries[prefix + "name"] = flags.name;
  entries[prefix + "rules"] = flags.rules;
  if (!flags.transform.empty()) entries[prefix + "transform"] = flags.transform;
  entries[prefix + "n"] = std::to_string(data.size());
  entries[prefix + "sha256"] = data.sha256();
}

void put_data(Report& report, const DataFlags& flags, const Dataset& data) {
  put_data(report.data, "", flags, data);
  report.data.erase("n");
  report.data_numbers["n"] = static_cast<double>(data.size());
  report.data_numbers["classes"] = static_cast<double>(data.classes());
}

Samples to_samples(const Dataset& data, const std::map<std::string, std::string>& metadata, DType dtype) {
  std::vector<int64_t> all(static_cast<size_t>(data.size()));
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<int64_t>(i);
  Samples out;
  out.inputs = data.images_as_float(all, normalisation_of(data, metadata), dtype);
  out.labels = data.has_labels() ? data.labels_at(all) : Tensor();
  out.ids = data.ids();
  return out;
}

SampleSource sample_source(const Dataset& data, const std::map<std::string, std::string>& metadata, DType dtype) {
  return {data.labels(), data.ids(),
          [data, dtype, normalisation = normalisation_of(data, metadata)](const std::vector<int64_t>& positions) {
            return data.images_as_float(positions, normalisation, dtype);
          }};
}

void add_train_flags(CLI::App& command, TrainFlags& flags) {
  TrainConfig& c = flags.config;
  command
      .add_option("--loss", c.loss,
                  "ce (cross-entropy), mse (half the squared error to one-hot targets) or bce (binary cross-entropy of "
                  "every class); class weights behind a colon, as in ce:1,2,1")
      ->capture_default_str();
  command.add_option("--label-smoothing", c.label_smoothing, "for cross-entropy, in [0, 1)")->capture_default_str();
  command.add_option("--epochs", c.epochs, "passes over the data; 0: the weights stay as they are")
      ->capture_default_str();
  command.add_option("--batch", c.batch_size, "samples per step")->capture_default_str();
  command.add_option("--lr", c.learning_rate, "peak learning rate")->capture_default_str();
  command
      .add_option("--schedule", flags.schedule,
                  "constant, step:PARTS:FACTOR, cosine[:WARMUP], power:EXPONENT:WARMUP or one-cycle")
      ->capture_default_str();
  command.add_option("--optimiser", c.optimiser.kind, "sgd, adam or adamw")->capture_default_str();
  command.add_option("--momentum", c.optimiser.momentum, "of sgd")->capture_default_str();
  command.add_flag("--nesterov,!--no-nesterov", c.optimiser.nesterov, "Nesterov's momentum for sgd")
      ->capture_default_str();
  command.add_option("--weight-decay", c.optimiser.weight_decay, "factor of the parameters themselves")
      ->capture_default_str();
  command.add_option("--l2", c.l2, "λ of ½λ‖θ − θ0‖², added to the mean loss; ρ = nλ")->capture_default_str();
  command.add_flag("--recompute", c.recompute,
                   "blocks of the model run again in the backward pass instead of keeping what they computed: less "
                   "memory, the same bits");
  command.add_flag("--flip", c.augmentation.flip, "mirror half of the images");
  command.add_option("--crop", c.augmentation.crop, "shift images by up to this many pixels")->capture_default_str();
  command
      .add_option("--stop-after-steps", c.stop_after_steps, "end after this many steps of the schedule; 0: run it out")
      ->capture_default_str();
}

TrainConfig train_config(const TrainFlags& flags, const Common& common) {
  TrainConfig c = flags.config;
  c.schedule = Schedule::parse(flags.schedule);
  c.seed = common.seed;
  find_loss(c.loss);
  require_usage(c.label_smoothing >= 0 && c.label_smoothing < 1, "label smoothing must be in [0, 1), got {}",
                c.label_smoothing);
  return c;
}

void put_options(ModelConfig& config, const std::vector<std::string>& options) {
  for (const std::string& option : options) {
    const size_t at = option.find('=');
    require_usage(at != std::string::npos && at > 0, "--option must be NAME=VALUE, got '{}'", option);
    config.options[option.substr(0, at)] = option.substr(at + 1);
  }
}

Checkpoint open_model(const std::string& path, const std::string& architecture) {
  return load_model(path, architecture);
}

void add_input_flags(CLI::App& command, InputFlags& flags) {
  command.add_option("--input", flags.input,
                     "tensor file (.safetensors with a tensor `input` [N, C, H, W], or .npy), taken as it is");
  add_data_flags(command, flags.data, "data set, when there is no --input", "which samples of it");
  command.add_option("--part", flags.part, "train or test")
      ->check(CLI::IsMember({"train", "test"}))
      ->capture_default_str();
}

void exclude_data_beside_input(CLI::App& command) {
  for (const char* const other : {"--data", "--samples", "--transform", "--part"})
    command.get_option("--input")->excludes(command.get_option(other));
}

const std::string& finetune_entry(const std::map<std::string, std::string>& metadata, const std::string& key,
                                  const std::string& path) {
  const auto it = metadata.find(key);
  require(it != metadata.end(), "{} was not written by `fastntk finetune`: its metadata have no '{}'", path, key);
  return it->second;
}

DataFlags finetune_data_flags(const std::map<std::string, std::string>& metadata, const std::string& path) {
  return {.name = finetune_entry(metadata, "finetune.data.name", path),
          .rules = finetune_entry(metadata, "finetune.data.rules", path),
          .transform = transform_of({}, metadata)};
}

Dataset load_finetune_data(const std::map<std::string, std::string>& metadata, const std::string& path, Common common) {
  // The samples are those of fine-tuning, whatever today's seed.
  common.seed = finetune_number<uint64_t>(metadata, "finetune.seed", path);
  Dataset data = load_samples(finetune_data_flags(metadata, path), common, Part::train);
  require(data.sha256() == finetune_entry(metadata, "finetune.data.sha256", path),
          "the data are not those that {} was fine-tuned on: their SHA-256 differs", path);
  return data;
}

Tensor load_theta0(const std::string& path) {
  const SafeTensors file = SafeTensors::load(path);
  const Tensor* const theta0 = file.find("fastntk.theta0");
  require(theta0 != nullptr, "{} has no tensor 'fastntk.theta0', where fine-tuning started", path);
  return *theta0;
}

void check_outputs(std::initializer_list<std::string> paths) {
  for (const std::string& path : paths)
    if (!path.empty()) check_output(path);
}

void check_test_labels(const Dataset& test, int64_t classes) {
  for (const int64_t label : test.labels().to_vector<int64_t>())
    require_usage(label < classes,
                  "the model has {} classes, and the test samples have the class {}: choose others by --test-samples",
                  classes, label);
}

void check_fine_tuned(const std::map<std::string, std::string>& metadata, const std::string& path) {
  const auto rule = metadata.find("unlearn.rule");
  require_usage(rule == metadata.end(),
                "{} has forgotten samples already (by {}), and would be taken as if it had all that it was fine-tuned "
                "on: begin with the model before, or fine-tune this one",
                path, rule == metadata.end() ? "" : rule->second);
}

std::string beyond_the_objective(const std::map<std::string, std::string>& metadata) {
  std::string what;
  for (const auto& [key, name] : {std::pair{"finetune.label_smoothing", "label smoothing"},
                                  {"finetune.weight_decay", "weight decay"},
                                  {"finetune.flip", "mirrored images"},
                                  {"finetune.crop", "shifted images"}}) {
    const auto at = metadata.find(key);
    if (at == metadata.end() || at->second == "0" || at->second == "false") continue;
    what += fmt::format("{}{}", what.empty() ? "" : ", ", name);
  }
  return what.empty() ? ""
                      : "note: the model was fine-tuned with " + what +
                            ", which the linearised objective has not: its optimum is not that of fine-tuning\n";
}

void erase_entries(std::map<std::string, std::string>& metadata, const std::string& prefix) {
  std::erase_if(metadata, [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

void check_channels(const Dataset& data, const Checkpoint& checkpoint) {
  if (data.size() == 0) return;
  const int64_t takes = checkpoint.model.config.channels;
  require(data.channels() == takes, "the images of {} have {} channels, the model takes {}{}", data.name(),
          data.channels(), takes,
          takes == 3 && data.channels() == 1   ? "; the transform rgb repeats a grey one"
          : takes == 1 && data.channels() == 3 ? "; the transform grey makes one of them"
                                               : "");
}

Samples load_inputs(const InputFlags& flags, const Checkpoint& checkpoint, const Common& common) {
  const DType dtype = checkpoint.model->dtype();
  if (!flags.input.empty()) return to_samples(load_tensor_file(flags.input), {}, dtype);
  DataFlags data_flags = flags.data;
  data_flags.transform = transform_of(flags.data, checkpoint.metadata);
  const Dataset data = load_samples(data_flags, common, flags.part == "train" ? Part::train : Part::test);
  check_channels(data, checkpoint);
  std::map<std::string, std::string> metadata = checkpoint.metadata;
  put_transform(metadata, data_flags.transform, data.channels());
  return to_samples(data, metadata, dtype);
}

std::map<std::string, std::string> columns_of(const Subset& subset) {
  std::map<std::string, std::string> m = {{"subset", subset.specification},
                                          {"parameters", std::to_string(subset.size())}};
  for (size_t i = 0; i < subset.entries.size(); i++)
    m[fmt::format("columns.{:04}", i)] =
        fmt::format("{} {} {}", subset.entries[i].name, subset.entries[i].offset, subset.entries[i].shape.str());
  return m;
}

void check_tensor_output(const std::string& path) {
  require_usage(path.ends_with(".safetensors") || path.ends_with(".npy"),
                "the output must end in .safetensors or .npy, got '{}'", path);
  check_output(path);
}

void write_tensor(const std::string& path, const std::string& name, const Tensor& tensor,
                  const std::map<std::string, std::string>& metadata) {
  if (path.ends_with(".npy")) {
    save_npy(path, tensor);
    return;
  }
  SafeTensors file;
  file.metadata = metadata;
  file.tensors.emplace_back(name, tensor.contiguous());
  file.save(path);
}

}  // namespace fastntk::apps
