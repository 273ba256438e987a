#include "apps/request.h"

#include "engine/file.h"
#include "unlearn/record_page.h"

namespace fastntk::apps {

void print_request(const RequestRecord& r) {
  std::string what = fmt::format("{} of {} samples forgotten", r.ids.size(), r.n_before);
  if (r.request == "add") what = fmt::format("{} samples added to {}", r.arrived.size(), r.n_before);
  if (r.request == "restore")
    what = fmt::format("back to the {} samples after entry {}: {} arrived, {} left", r.n_after, r.restored_to,
                       r.arrived.size(), r.ids.size());
  fmt::print(
      "{}: {}, relative residual {:.1e} ({}), condition at most about {:.1e}, ‖Δθ‖ {:.3e}\n"
      "probe: predicted change {:.3e}, actual {:.3e}, linearisation error {:.3f}, A off by {:.3f} of itself; {}\n",
      r.entry == 0 ? "dry run, nothing written to the state" : fmt::format("entry {}", r.entry), what,
      r.relative_residual, r.representation, r.condition_bound, r.update_norm, r.predicted_change, r.actual_change,
      r.linearisation_error, r.matrix_distance, r.advice);
  if (r.newton)
    fmt::print(
        "optimum of the linearised model: gradient {:.1e} → {:.1e} in {} chord and {} Newton steps, {} passes over the "
        "rows; at most {:.1e} of ‖θ_newton − θ0‖ away; with Λ frozen ‖θ − θ*‖ would be off by {:.1e} of itself\n",
        r.newton->start_gradient_norm, r.newton->gradient_norm, r.newton->chord_steps, r.newton->newton_steps,
        r.newton->passes, r.newton->distance_bound, r.newton->frozen_difference);
}

void put_request(Report& report, const RequestRecord& r, double seconds) {
  report.results = {{"seconds", seconds},
                    {"relative_residual", r.relative_residual},
                    {"linearisation_error", r.linearisation_error},
                    {"update_norm", r.update_norm},
                    {"n_before", static_cast<double>(r.n_before)},
                    {"n_after", static_cast<double>(r.n_after)}};
}

void add_outcome_flags(CLI::App& command, std::string& model, std::string& page) {
  command.add_option("--html", page, "also write the record as a page to this file");
  command.add_option("-o,--output", model, "also write the model with the new weights to this file");
}

void write_outcome(const Outcome& outcome, const Prepared& state, const RequestRecord& record) {
  if (!outcome.model.empty()) {
    const Checkpoint& c = state.checkpoint();
    const Model moved = c.model.clone();
    scatter(*moved, state.subset(), record.theta);
    auto m = c.metadata;
    m["unlearn.rule"] = record.rule;
    m["unlearn.journal"] = state.journal().last_hash();
    save_model(outcome.model, moved, m);
  }
  if (outcome.page.empty()) return;
  const std::string text = record.entry ? read_file(state.record_path(record.entry)) : record.json();
  write_file_atomically(outcome.page, record_page(text, outcome.page));
}

}  // namespace fastntk::apps
