// fastntk restore, add and relinearise: samples come (back) to a prepared state, and a new one is made of what it has
// (docs/deletion.md).
#include <optional>

#include "apps/common.h"
#include "apps/request.h"
#include "apps/state_data.h"
#include "engine/progress.h"
#include "unlearn/prepared.h"

namespace fastntk::apps {
namespace {

struct Flags {
  Common common;
  std::string state, output, page, key;
  StateData data;
  int64_t to = -1;
  int steps = 1;
};

void add_request_flags(CLI::App& c, Flags& f) {
  c.add_option("state", f.state, "folder made by `fastntk prepare`")->required();
  add_state_data_flags(c, f.data);
  c.add_option("--sign", f.key, "sign the record with the private Ed25519 key in this PEM file");
  add_outcome_flags(c, f.output, f.page);
  add_device_flag(c, f.common);
  add_common(c, f.common);
}

// Makes a request that samples are needed for.
template <class Make>
void run_request(const Flags& f, const CLI::App& command, Make&& make) {
  apply_common(f.common);
  Report report = new_report(command);
  check_outputs({f.output, f.page});  // before what cannot be taken back
  std::optional<SignatureKey> key;
  if (!f.key.empty()) key = SignatureKey::read_private(f.key);
  const Stopwatch clock;
  std::optional<Prepared> state;
  const Phase opening =
      measure("open", [&] { state = Prepared::open(f.state, Journal::Access::write, device_of(f.common)); });
  const RequestRecord r = make(*state, RequestOptions{.command = report.command,
                                                      .phases = {opening},
                                                      .key = key ? &*key : nullptr,
                                                      .jacobian = {.memory = parse_bytes(f.common.memory)}});
  print_request(r);
  write_outcome({f.output, f.page}, *state, r);
  put_request(report, r, clock.seconds());
  fmt::print("{}\n", format_duration(clock.seconds()));
  finish(report, f.common);
}

void run_relinearise(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  require_usage(f.steps >= 0, "--steps must be 0 or more, got {}", f.steps);
  const Stopwatch clock;
  const Prepared state = Prepared::open(f.state, Journal::Access::read, device_of(f.common));
  const SampleSource samples = samples_at(f.data, f.common, state, state.present());
  const auto [again, steps] =
      state.relinearise(f.output, samples, f.steps, {.jacobian = {.memory = parse_bytes(f.common.memory)}});
  for (size_t i = 0; i < steps.size(); i++)
    fmt::print("step {}: objective {:.6g} → {:.6g}, gradient norm before it {:.3e}{}\n", i + 1,
               steps[i].objective_before, steps[i].objective_after, steps[i].gradient_norm_before,
               steps[i].accepted ? "" : "; no step lowers the objective");
  fmt::print("{}: n = {}, linearised after {} step{} from the weights of {}, {}\n", f.output, again.ids().size(),
             steps.size(), steps.size() == 1 ? "" : "s", f.state, format_duration(clock.seconds()));
  report.results = {{"n", static_cast<double>(again.ids().size())},
                    {"steps", static_cast<double>(steps.size())},
                    {"seconds", clock.seconds()}};
  if (!steps.empty()) {
    report.results["objective_before"] = steps.front().objective_before;
    report.results["objective_after"] = steps.back().objective_after;
  }
  finish(report, f.common);
}

}  // namespace

void add_restore(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c =
      app.add_subcommand("restore", "go back to the samples that a prepared state had after an entry of its journal");
  add_request_flags(*c, *f);
  c->add_option("--to", f->to, "the entry; 0: as prepared")->required()->check(not_negative());
  c->callback([f, c] {
    run_request(*f, *c, [&](Prepared& state, const RequestOptions& options) {
      return state.restore(f->to, samples_of(f->data, f->common, state), options);
    });
  });
}

void add_add(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("add", "add samples to a prepared state");
  add_request_flags(*c, *f);
  c->callback([f, c] {
    require_usage(c->count("--samples") > 0, "--samples says which samples of the data set to add");
    run_request(*f, *c, [&](Prepared& state, const RequestOptions& options) {
      return state.add(samples_of(f->data, f->common, state), options);
    });
  });
}

void add_relinearise(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand(
      "relinearise",
      "make a new prepared state of the samples that one has, linearised at its present weights or steps from there");
  c->add_option("state", f->state, "folder made by `fastntk prepare`; it stays as it is")->required();
  c->add_option("-o,--output", f->output, "the folder to make")->required();
  c->add_option("--steps", f->steps, "damped Gauss–Newton steps towards the optimum of retraining; 0: stay where it is")
      ->capture_default_str();
  add_state_data_flags(*c, f->data);
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] { run_relinearise(*f, *c); });
}

}  // namespace fastntk::apps
