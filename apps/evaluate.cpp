// fastntk evaluate, predict and jacobian.
#include "apps/common.h"
#include "engine/progress.h"
#include "engine/safetensors.h"
#include "unlearn/jacobian.h"
#include "unlearn/metrics.h"

namespace fastntk::apps {
namespace {

struct Flags {
  Common common;
  InputFlags input;
  std::string model, architecture, output, subset = "bn";
};

void add_model_flags(CLI::App& c, Flags& f, bool output) {
  c.add_option("model", f.model, "model file (.safetensors)")->required();
  c.add_option("--arch", f.architecture, "architecture, for a checkpoint without our configuration");
  if (output) c.add_option("-o,--output", f.output, "file to write, .safetensors or .npy")->required();
  add_input_flags(c, f.input);
  exclude_data_beside_input(c);
  add_device_flag(c, f.common);
}

struct Placed {
  Checkpoint checkpoint;
  Samples samples;
};
// The model and its inputs, in the memory of the device of the flags; labels stay on the host, where metrics are
// computed.
Placed load_on(Device device, const Flags& f) {
  Placed out{open_model(f.model, f.architecture), {}};
  out.samples = load_inputs(f.input, out.checkpoint, f.common);
  out.checkpoint.model->to(device);
  out.samples.inputs = out.samples.inputs.to(device);
  return out;
}

void run_evaluate(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  const Device device = device_of(f.common);
  Report report = new_report(command);
  const auto [checkpoint, samples] = load_on(device, f);
  require(samples.labels.defined(), "these samples have no labels to evaluate against");
  require_usage(samples.size() > 0, "'{}' chooses no samples", f.input.data.rules);
  const Stopwatch clock;
  const Tensor logits = predict(*checkpoint.model, samples.inputs).to(Device::cpu);
  report.results = {{"n", static_cast<double>(samples.size())},
                    {"accuracy", accuracy(logits, samples.labels)},
                    {"cross_entropy", mean_cross_entropy(logits, samples.labels)},
                    {"squared_error", mean_squared_error(logits, samples.labels)},
                    {"seconds", clock.seconds()}};
  fmt::print("{} samples: accuracy {:.4f}, mean cross-entropy {:.4f}, mean ½ squared error {:.4f}\n", samples.size(),
             report.results["accuracy"], report.results["cross_entropy"], report.results["squared_error"]);
  // By class, because an average hides a class that was forgotten.
  const auto labels = samples.labels.to_vector<int64_t>();
  const auto values = logits.to(DType::float64).to_vector<double>();
  const int64_t C = logits.extent(1);
  for (int64_t c = 0; c < C; c++) {
    int64_t count = 0, right = 0;
    for (size_t i = 0; i < labels.size(); i++) {
      if (labels[i] != c) continue;
      const double* const row = values.data() + static_cast<int64_t>(i) * C;
      count++, right += std::max_element(row, row + C) - row == c;
    }
    if (!count) continue;
    report.results[fmt::format("accuracy_class_{}", c)] = static_cast<double>(right) / static_cast<double>(count);
    fmt::print("  class {}: accuracy {:.4f} of {}\n", c, static_cast<double>(right) / static_cast<double>(count),
               count);
  }
  finish(report, f.common);
}

void run_predict(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  check_tensor_output(f.output);
  const Device device = device_of(f.common);
  Report report = new_report(command);
  const auto [checkpoint, samples] = load_on(device, f);
  const Stopwatch clock;
  const Tensor logits = predict(*checkpoint.model, samples.inputs).to(Device::cpu);
  report.results = {{"n", static_cast<double>(samples.size())}, {"seconds", clock.seconds()}};
  write_tensor(f.output, "logits", logits, {});
  fmt::print("{}: logits {}, {}\n", f.output, logits.describe(), format_duration(report.results["seconds"]));
  finish(report, f.common);
}

void run_jacobian(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  check_tensor_output(f.output);
  const Device device = device_of(f.common);
  Report report = new_report(command);
  const auto [checkpoint, samples] = load_on(device, f);
  const Subset subset = choose(*checkpoint.model, f.subset);
  fmt::print("{}", subset.table());
  reset_peak_memory(device);
  const Stopwatch clock;
  const Jacobian j = jacobian(*checkpoint.model, subset, samples.inputs,
                              {.memory = parse_bytes(f.common.memory), .title = "jacobian"});
  synchronise(device);
  report.results = {{"n", static_cast<double>(samples.size())},
                    {"parameters", static_cast<double>(subset.size())},
                    {"seconds", clock.seconds()},
                    {"samples_per_second", static_cast<double>(samples.size()) / clock.seconds()},
                    {"peak_bytes", static_cast<double>(memory_statistics(device).peak)},
                    {"jacobian_bytes", static_cast<double>(j.rows.bytes())}};
  write_tensor(f.output, "jacobian", j.rows.to(Device::cpu), columns_of(subset));
  fmt::print("{}: J {}, {:.4g} samples/s, peak {} of which J {}\n", f.output, j.rows.describe(),
             report.results["samples_per_second"], format_bytes(report.results["peak_bytes"]),
             format_bytes(report.results["jacobian_bytes"]));
  finish(report, f.common);
}

}  // namespace

void add_evaluate(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("evaluate", "accuracy and losses of a model");
  add_model_flags(*c, *f, false);
  add_common(*c, f->common);
  c->callback([f, c] { run_evaluate(*f, *c); });
}

void add_predict(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("predict", "logits [N, C] of a model");
  add_model_flags(*c, *f, true);
  add_common(*c, f->common);
  c->callback([f, c] { run_predict(*f, *c); });
}

void add_jacobian(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c =
      app.add_subcommand("jacobian", "per-sample Jacobian [N, C, P] of the logits in a subset of the parameters");
  add_model_flags(*c, *f, true);
  c->add_option("--subset", f->subset, "bn, head, bias, all, joined by +, or patterns over parameter names")
      ->capture_default_str();
  add_common(*c, f->common);
  c->callback([f, c] { run_jacobian(*f, *c); });
}

}  // namespace fastntk::apps
