// fastntk unlearn: forget some of the samples that a model was fine-tuned on.
#include "apps/common.h"
#include "datasets/split.h"
#include "engine/file.h"
#include "engine/safetensors.h"
#include "engine/sha256.h"
#include "unlearn/experiment.h"

namespace fastntk::apps {
namespace {

struct UnlearnFlags {
  Common common;
  std::string model, output, forget, markdown, test_rules = "all", convention = "mean", representation = "auto";
  std::vector<std::string> rules;
  int oracle_seeds = -1;
};

// The settings that the model was fine-tuned with.
TrainConfig finetune_settings(const std::map<std::string, std::string>& m, const std::string& path) {
  const auto text = [&](const char* key) { return finetune_entry(m, std::string("finetune.") + key, path); };
  const auto number = [&](const char* key) { return finetune_number<double>(m, std::string("finetune.") + key, path); };
  const auto integer = [&](const char* key) {
    return finetune_number<int64_t>(m, std::string("finetune.") + key, path);
  };
  TrainConfig c;
  c.loss = text("loss");
  c.label_smoothing = number("label_smoothing");
  c.optimiser = {.kind = text("optimiser"),
                 .momentum = number("momentum"),
                 .nesterov = text("nesterov") == "true",
                 .beta1 = number("beta1"),
                 .beta2 = number("beta2"),
                 .epsilon = number("epsilon"),
                 .weight_decay = number("weight_decay")};
  c.learning_rate = number("learning_rate");
  c.schedule = Schedule::parse(text("schedule"));
  c.epochs = integer("epochs");
  c.batch_size = integer("batch_size");
  c.l2 = number("l2");
  c.mode = Mode::eval;
  c.augmentation = {.flip = text("flip") == "true", .crop = integer("crop")};
  c.seed = finetune_number<uint64_t>(m, "finetune.seed", path);
  if (m.contains("finetune.stop_after_steps")) c.stop_after_steps = integer("stop_after_steps");
  return c;
}

void run_unlearn(const UnlearnFlags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  require_usage(f.oracle_seeds >= -1, "--oracle-seeds must be -1 or more, got {}", f.oracle_seeds);
  check_outputs({f.output, f.markdown});
  Checkpoint checkpoint = open_model(f.model, "");
  auto& m = checkpoint.metadata;
  check_fine_tuned(m, f.model);
  Module& model = *checkpoint.model;
  model.to(device_of(f.common));
  ExperimentConfig config;
  config.finetune = finetune_settings(m, f.model);
  config.subset = finetune_entry(m, "finetune.subset", f.model);
  require_usage(config.finetune.l2 > 0,
                "{} was fine-tuned without an L2 term (--l2), so ρ = nλ = 0 and no closed form exists", f.model);
  config.rules =
      f.rules.empty()
          ? std::vector<std::string>{find_loss(config.finetune.loss).curvature_factor ? "newton-shift" : "shift"}
          : f.rules;
  config.oracle_seeds = f.oracle_seeds;
  config.mean_convention = f.convention == "mean";
  config.representation = representation_of(f.representation);
  config.jacobian.memory = parse_bytes(f.common.memory);
  config.jacobian.title = "jacobian";
  const DataFlags data_flags = finetune_data_flags(m, f.model);
  const Dataset data = load_finetune_data(m, f.model, f.common);
  const Dataset test = load_samples({.name = data_flags.name, .rules = f.test_rules, .transform = data_flags.transform},
                                    f.common, Part::test);

  const Tensor theta0 = load_theta0(f.model);
  const Subset subset = choose(model, config.subset);
  require(theta0.shape() == Shape{subset.size()} && theta0.dtype() == DType::float64,
          "{}: θ0 is {}, expected float64 [{}]", f.model, theta0.describe(), subset.size());
  Finetuned finetuned{.theta0 = theta0, .theta_star = gather(model, subset)};

  ForgetTask task{.name = f.forget};
  task.forget = f.forget.empty() ? Positions{} : Split::parse(f.forget).positions(data, f.common.seed);
  // A class forgotten whole is left out of the test set.
  const auto counts = data.class_counts(), gone = data.subset(task.forget).class_counts();
  for (size_t c = 0; c < counts.size(); c++)
    if (counts[c] && gone[c] == counts[c]) task.forgotten_classes.push_back(static_cast<int64_t>(c));
  fmt::print("forget {} of {} samples ({}), {} (P = {}), {}, ρ = nλ = {:g} ({} convention)\n", task.forget.size(),
             data.size(), f.forget.empty() ? "none" : f.forget, config.subset, subset.size(), config.finetune.loss,
             ridge_of(config.finetune, data.size()), f.convention);
  fmt::print("{}", beyond_the_objective(m));
  check_test_labels(test, checkpoint.model.config.classes);
  const Samples samples = to_samples(data, m, model.dtype()), test_samples = to_samples(test, m, model.dtype());
  Tensor theta;
  report.rows = run_tasks(model, finetuned, samples, test_samples, {task}, config, {}, &theta);
  fmt::print("{}", table(report.rows));
  for (const auto& s : report.rows.back().solves)
    fmt::print("solve {}: {} with {} unknowns, relative residual {:.2e} after {} {}, condition about {:.2e}\n", s.name,
               s.representation, s.unknowns, s.relative_residual, s.refinement_steps,
               s.representation == "matrix-free" ? "steps of conjugate gradients" : "refinements",
               s.condition_estimate);
  if (!f.markdown.empty()) write_file_atomically(f.markdown, markdown_table(report.rows));
  if (!f.output.empty()) {
    scatter(model, subset, theta);
    m["unlearn.forget"] = f.forget;
    m["unlearn.forget.ids_sha256"] = data.subset(task.forget).ids_sha256();
    m["unlearn.rule"] = config.rules.back();
    save_model(f.output, checkpoint.model, m, {{"fastntk.theta0", theta0}});
    fmt::print("{}: the model after {}\n", f.output, config.rules.back());
  }
  put_data(report, data_flags, data);
  report.data_numbers["n_forget"] = static_cast<double>(task.forget.size());
  finish(report, f.common);
}

}  // namespace

void add_unlearn(CLI::App& app) {
  auto f = std::make_shared<UnlearnFlags>();
  CLI::App* const c =
      app.add_subcommand("unlearn", "move a fine-tuned model to where it would be without some of its samples");
  c->add_option("model", f->model, "a model written by `fastntk finetune`; its settings are in its metadata")
      ->required();
  c->add_option("--forget", f->forget,
                "which of its samples: class:9, random:0.1, ids:3,14, ids-file:PATH, …; empty: none");
  c->add_option("--rule", f->rules,
                "shift, solve, golatkar, golatkar-scaled; for cross-entropy also residual, newton-solve, newton-shift; "
                "relinearise:K alone "
                "or after another as RULE+relinearise:K. Default: shift, or newton-shift for cross-entropy");
  c->add_option("--convention", f->convention,
                "ρ on the retain set: mean (n_r λ, as retraining has it) or sum (unchanged)")
      ->check(CLI::IsMember({"mean", "sum"}))
      ->capture_default_str();
  c->add_option("--representation", f->representation,
                "of the linear systems: auto (the smaller of the two), primal, dual, or matrix-free, which keeps no "
                "Jacobian and solves by conjugate gradients (docs/ntk.md)")
      ->capture_default_str();
  c->add_option("--oracle-seeds", f->oracle_seeds,
                "also retrain on the retain set: with the seed of fine-tuning and this many more; -1: not at all")
      ->capture_default_str();
  c->add_option("--test-samples", f->test_rules, "which samples of the test part to measure on")->capture_default_str();
  c->add_option("-o,--output", f->output, "write the model after the last rule to this file");
  c->add_option("--markdown", f->markdown, "write the table to this file in Markdown");
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] { run_unlearn(*f, *c); });
}

}  // namespace fastntk::apps
