// fastntk report: the metrics of a request, added to its record, and the record as a page (docs/deletion.md).
#include <algorithm>
#include <cmath>

#include "apps/common.h"
#include "apps/state_data.h"
#include "engine/file.h"
#include "training/gradient.h"
#include "unlearn/metrics.h"
#include "unlearn/record_file.h"
#include "unlearn/record_page.h"
#include "unlearn/relinearise.h"
#include "unlearn/verify_record.h"

namespace fastntk::apps {
namespace {

struct Flags {
  Common common;
  std::string record, state, page, test_rules = "all";
  StateData data;
};

// The samples of the test part but those of classes that were forgotten whole.
Samples test_samples(const Flags& f, const Prepared& state, const Positions& forgotten, const Positions& retained) {
  std::vector<bool> gone(static_cast<size_t>(state.checkpoint().model.config.classes), false);
  for (const int64_t i : forgotten) gone[static_cast<size_t>(state.labels()[static_cast<size_t>(i)])] = true;
  for (const int64_t i : retained) gone[static_cast<size_t>(state.labels()[static_cast<size_t>(i)])] = false;
  const Dataset test = load_samples(data_flags_of({f.data.name, f.test_rules}, state), f.common, Part::test);
  const auto labels = test.labels().to_vector<int64_t>();
  check_test_labels(test, std::ssize(gone));
  std::vector<int64_t> kept;
  for (size_t i = 0; i < labels.size(); i++)
    if (!gone[static_cast<size_t>(labels[i])]) kept.push_back(static_cast<int64_t>(i));
  const Checkpoint& checkpoint = state.checkpoint();
  return to_samples(test.subset(kept), checkpoint.metadata, checkpoint.model->dtype());
}

void run_report(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  check_outputs({f.page, f.state.empty() ? "" : f.record});
  const RecordFile record = read_record(f.record);
  std::string text = record.text;
  if (!f.state.empty()) {
    const Prepared state = Prepared::open(f.state, Journal::Access::read, device_of(f.common));
    require(is_bound(record, state), "{} is not the record that the journal of {} is bound to for entry {}", f.record,
            f.state, record.entry);
    const Positions retained = state.present_after(record.entry);
    Positions forgotten;
    for (const int64_t i : state.present_after(record.entry - 1))
      if (!std::binary_search(retained.begin(), retained.end(), i)) forgotten.push_back(i);
    const std::map<std::string, Samples> sets = {
        {"forget", samples_at(f.data, f.common, state, forgotten).all()},
        {"retain", state.in_order(samples_at(f.data, f.common, state, retained), retained).all()},
        {"test", test_samples(f, state, forgotten, retained)}};
    RecordMetrics metrics;
    const Model& star = state.checkpoint().model;
    const Tensor theta_star = gather(*star, state.subset());
    const Model model = star.clone();
    for (const bool after : {false, true}) {
      const Tensor theta = state.theta_after(after ? record.entry : record.entry - 1);
      scatter(*model, state.subset(), theta);
      auto& values = after ? metrics.after : metrics.before;
      for (const auto& [name, samples] : sets) {
        const Tensor logits = samples.size() ? predict(*model, samples.inputs) : Tensor();
        values["acc_" + name] = samples.size() ? accuracy(logits, samples.labels) : std::nan("");
        values["loss_" + name] = samples.size() ? mean_cross_entropy(logits, samples.labels) : std::nan("");
        values["n_" + name] = static_cast<double>(samples.size());
        if (after)
          metrics.linearisation_error[name] =
              samples.size() ? linearisation_error(directional_derivative(*star, state.subset(), samples.inputs,
                                                                          combine(theta, -1, theta_star)),
                                                   logits)
                             : std::nan("");
      }
    }
    for (const auto& [name, samples] : sets) {
      report.results["acc_" + name] = metrics.after["acc_" + name];
      report.results["loss_" + name] = metrics.after["loss_" + name];
      if (samples.size() == 0)
        fmt::print("{:<7}      0 samples\n", name);
      else
        fmt::print(
            "{:<7} {:>6} samples: accuracy {:.4f} before, {:.4f} after; loss {:.4f}, {:.4f}; linearisation error "
            "{:.3f}\n",
            name, samples.size(), metrics.before["acc_" + name], metrics.after["acc_" + name],
            metrics.before["loss_" + name], metrics.after["loss_" + name], metrics.linearisation_error[name]);
    }
    text = with_metrics(record, metrics);
    write_file_atomically(f.record, text);
  }
  if (!f.page.empty()) write_file_atomically(f.page, record_page(text, f.record));
  finish(report, f.common);
}

}  // namespace

void add_report(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("report", "add metrics to the record of a request, show it as a page");
  c->add_option("record", f->record, "record of the request, record-NNNNNN.json; its result stays as it is")
      ->required();
  c->add_option("--state", f->state, "folder with the prepared state, for the metrics; without it there are none");
  c->add_option("--html", f->page, "write the record as a page to this file");
  add_state_data_flags(*c, f->data);
  c->add_option("--test-samples", f->test_rules, "which samples of the test part to measure on")->capture_default_str();
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] {
    require_usage(!f->state.empty() || !f->page.empty(),
                  "--state says where to take metrics from, --html where to write the page; one of them is needed");
    run_report(*f, *c);
  });
}

}  // namespace fastntk::apps
