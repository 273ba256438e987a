// fastntk pretrain and fastntk finetune.
#include <filesystem>

#include "apps/common.h"
#include "engine/file.h"
#include "engine/progress.h"
#include "engine/sha256.h"
#include "models/adapt.h"
#include "models/head.h"
#include "models/image_size.h"
#include "unlearn/experiment.h"
#include "unlearn/metrics.h"

namespace fastntk::apps {
namespace {

struct PretrainFlags {
  Common common;
  DataFlags data{.name = "fashion-mnist", .rules = "0-29999 class:0-8"},
      test{.name = "fashion-mnist", .rules = "class:0-8"};
  TrainFlags train;
  std::string output, architecture = "resnet20", shortcut = "B", stem;
  std::vector<std::string> options;
  int64_t width = 0;
};

void run_pretrain(const PretrainFlags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  check_output(f.output);
  const Dataset data = load_samples(f.data, f.common, Part::train);
  const Dataset test = load_samples(f.test, f.common, Part::test);
  require_usage(data.size() > 0, "there are no samples to train on: '{}' chooses none", f.data.rules);
  require_usage(test.size() > 0, "there are no samples to report accuracy on: '{}' chooses none", f.test.rules);
  // Classes from 0 to the largest that occurs: the classifier has no rows for what it never saw.
  int64_t classes = 0;
  const auto counts = data.class_counts();
  for (size_t c = 0; c < counts.size(); c++)
    if (counts[c]) classes = static_cast<int64_t>(c) + 1;

  ModelConfig config{.architecture = f.architecture,
                     .classes = classes,
                     .channels = data.channels(),
                     .image_height = data.height(),
                     .image_width = data.width()};
  if (f.width) config.options["width"] = std::to_string(f.width);
  if (f.architecture == "resnet20" || f.architecture == "resnet32" || f.architecture == "resnet44" ||
      f.architecture == "resnet56" || command.count("--shortcut") > 0)
    config.options["shortcut"] = f.shortcut;
  if (!f.stem.empty()) config.options["stem"] = f.stem;
  put_options(config, f.options);
  Model model = make_model(config, f.common.seed);
  model->to(device_of(f.common));

  std::map<std::string, std::string> metadata;
  const std::string transform = transform_of(f.data, {});
  if (!Transform::parse(transform).normalisation(data.channels()))
    put_normalisation(metadata, measure_normalisation(data));
  put_transform(metadata, transform, data.channels());
  put_data(metadata, "pretrain.data.", f.data, data);
  TrainConfig train_settings = train_config(f.train, f.common);
  train_settings.mode = Mode::train;
  train_settings.network = model.config.str();
  for (const auto& [key, value] : train_settings.settings()) metadata["pretrain." + key] = value;
  const Samples samples = to_samples(data, metadata, DType::float32),
                test_samples = to_samples(test, metadata, DType::float32);
  const std::string unfinished = f.output + ".training.partial";
  const TrainResult result = train(*model, choose(*model, "all"), samples, train_settings,
                                   "pretrain " + model.config.architecture, unfinished);
  save_model(f.output, model, metadata);
  std::filesystem::remove(unfinished);
  report.results["acc_test"] = accuracy(predict(*model, test_samples.inputs), test_samples.labels);
  report.results["seconds"] = result.seconds;
  report.results["steps"] = static_cast<double>(result.steps);
  for (size_t e = 0; e < result.epoch_loss.size(); e++) {
    report.results[fmt::format("loss_epoch_{}", e + 1)] = result.epoch_loss[e];
    fmt::print("epoch {}: mean loss {:.4f}\n", e + 1, result.epoch_loss[e]);
  }
  report.notes["sha256"] = sha256_of_file(f.output);
  put_data(report, f.data, data);
  report.config["samples"] = f.data.rules, report.config["test-samples"] = f.test.rules;
  fmt::print("{}: {} on {} samples ({}), test accuracy {:.4f} on {} samples, {}\nsha256 {}\n", f.output,
             model.config.str(), data.size(), f.data.rules, report.results["acc_test"], test.size(),
             format_duration(result.seconds), report.notes["sha256"]);
  finish(report, f.common);
}

struct FinetuneFlags {
  Common common;
  DataFlags data{.name = "fashion-mnist", .rules = "30000-59999 per-class:100"};
  TrainFlags train;
  std::string model, output, subset = "bn+head", head = "zero", architecture;
  int64_t image_size = 0;
};

void run_finetune(const FinetuneFlags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  check_output(f.output);
  require_usage(f.image_size >= 0, "--image-size must be 0 or more, got {}", f.image_size);
  Checkpoint checkpoint = open_model(f.model, f.architecture);
  DataFlags data_flags = f.data;
  data_flags.transform = transform_of(f.data, checkpoint.metadata);
  const Dataset data = load_samples(data_flags, f.common, Part::train);
  require_usage(data.size() > 0, "there are no samples to train on: '{}' chooses none", f.data.rules);
  check_channels(data, checkpoint);
  put_transform(checkpoint.metadata, data_flags.transform, data.channels());
  if (f.image_size > 0) checkpoint.model = with_image_size(checkpoint.model, f.image_size, f.image_size);
  if (f.head != "keep")
    checkpoint.model = replace_head(checkpoint.model, data.classes(), head_rule(f.head), f.common.seed);
  checkpoint.model = adapt(checkpoint.model, f.subset, f.common.seed);
  Module& model = *checkpoint.model;
  model.to(device_of(f.common));
  const Subset subset = choose(model, f.subset);
  TrainConfig train_settings = train_config(f.train, f.common);
  train_settings.mode = Mode::eval;
  train_settings.network = checkpoint.model.config.str();
  const Samples samples = to_samples(data, checkpoint.metadata, model.dtype());
  const Loss& loss = find_loss(train_settings.loss);
  fmt::print("{}", subset.table());
  const double rho = ridge_of(train_settings, samples.size());
  const Objective before = objective(model, subset, samples, loss, rho, gather(model, subset));
  require_usage(
      before.gradient_norm > 0,
      "nothing can be learnt: at θ0 the gradient of the loss in the subset '{}' is 0; where the classifier is "
      "not in the subset, it must not start from zero: --head keep, or keep-and-random",
      f.subset);
  const std::string unfinished = f.output + ".training.partial";
  const Finetuned result = finetune(model, subset, samples, train_settings, "finetune", unfinished);
  const Objective after = objective(model, subset, samples, loss, rho, result.theta0);

  auto& m = checkpoint.metadata;
  for (const char* const before : {"finetune.", "unlearn."}) erase_entries(m, before);
  put_data(m, "finetune.data.", data_flags, data);
  for (const auto& [key, value] : train_settings.settings()) m["finetune." + key] = value;
  m["finetune.subset"] = f.subset;
  m["finetune.head"] = f.head;
  save_model(f.output, checkpoint.model, m, {{"fastntk.theta0", result.theta0}});
  std::filesystem::remove(unfinished);
  report.results["acc_train"] = accuracy(predict(model, samples.inputs), samples.labels);
  report.results["objective"] = after.value();
  report.results["gradient_norm"] = after.gradient_norm;
  report.results["gradient_norm_relative"] = after.gradient_norm / before.gradient_norm;
  report.results["seconds"] = result.phase.seconds;
  put_data(report, data_flags, data);
  report.config["samples"] = data_flags.rules, report.config["transform"] = data_flags.transform;
  fmt::print(
      "{}: n = {}, ρ = nλ = {:g}, accuracy on D {:.4f}, objective {:.4f} (θ0: {:.4f}), gradient norm {:.4f} ({:.4f} of "
      "θ0's), {}\n",
      f.output, samples.size(), rho, report.results["acc_train"], after.value(), before.value(), after.gradient_norm,
      report.results["gradient_norm_relative"], format_duration(result.phase.seconds));
  finish(report, f.common);
}

}  // namespace

void add_pretrain(CLI::App& app) {
  auto f = std::make_shared<PretrainFlags>();
  f->train.config.epochs = 4;
  f->train.config.learning_rate = 0.2;
  f->train.config.optimiser.nesterov = true;
  f->train.config.augmentation.flip = true;
  f->train.schedule = "one-cycle";
  CLI::App* const c = app.add_subcommand("pretrain", "train a whole model on public data and save it");
  c->add_option("-o,--output", f->output, "the model file (.safetensors) to write")->required();
  c->add_option("--arch", f->architecture, "architecture (fastntk info lists them)")->capture_default_str();
  c->add_option("--width", f->width, "channels of the first stage of a CIFAR ResNet; 0: its default")
      ->capture_default_str();
  c->add_option("--shortcut", f->shortcut, "A (slice and pad) or B (1×1 convolution) for CIFAR ResNets")
      ->capture_default_str();
  c->add_option("--stem", f->stem, "imagenet or cifar for ResNet-18 and larger");
  c->add_option("--option", f->options, "further options of the architecture, NAME=VALUE, e.g. patch=4 depth=6");
  add_data_flags(*c, f->data, "data set to train on",
                 "which samples of its training part; all of it by default where it is not Fashion-MNIST");
  c->add_option("--test-samples", f->test.rules, "which samples of its test part to report accuracy on")
      ->capture_default_str();
  add_train_flags(*c, f->train);
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] {
    f->test.name = f->data.name;
    f->test.transform = f->data.transform;
    settle_rules(*c, "--samples", f->data);
    settle_rules(*c, "--test-samples", f->test);
    run_pretrain(*f, *c);
  });
}

void add_finetune(CLI::App& app) {
  auto f = std::make_shared<FinetuneFlags>();
  f->train.config.epochs = 12;
  f->train.config.learning_rate = 0.04;
  f->train.config.batch_size = 25;
  f->train.config.l2 = 1e-2;
  f->train.config.optimiser.nesterov = true;
  f->train.schedule = "power:2:0.1";
  CLI::App* const c =
      app.add_subcommand("finetune", "tune a subset of the parameters on private data, batch norm in eval mode");
  c->add_option("model", f->model, "the pre-trained model (.safetensors)")->required();
  c->add_option("-o,--output", f->output, "the model file to write; it keeps θ0 and all settings")->required();
  c->add_option("--arch", f->architecture, "architecture, for a checkpoint without our configuration");
  c->add_option(
      "--image-size", f->image_size,
      "resize a vision transformer's position embeddings for square images of this many pixels; 0: leave them");
  c->add_option("--subset", f->subset,
                "bn, ln, head, bias, bitfit, all, joined by +, or patterns over parameter names; prompt[:TOKENS], "
                "prompt-deep[:TOKENS], prompt-frame[:PIXELS], lora[:RANK] and adapter[:WIDTH] are added to the model")
      ->capture_default_str();
  c->add_option("--head", f->head,
                "the classifier at the start: keep, zero, keep-and-zero or keep-and-random (rows of new classes)")
      ->capture_default_str();
  add_data_flags(*c, f->data, "data set D",
                 "which samples of its training part; all of it by default where it is not Fashion-MNIST");
  add_train_flags(*c, f->train);
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] {
    settle_rules(*c, "--samples", f->data);
    run_finetune(*f, *c);
  });
}

}  // namespace fastntk::apps
