// fastntk prepare and forget: requests to forget, served from a prepared state (docs/deletion.md).
#include <optional>

#include "apps/common.h"
#include "apps/request.h"
#include "datasets/split.h"
#include "engine/progress.h"
#include "unlearn/ntk_rows.h"
#include "unlearn/prepared.h"

namespace fastntk::apps {
namespace {

constexpr int64_t affected_shown = 10;  // by a dry run
constexpr int64_t no_label = -1;

struct Flags {
  Common common;
  DataFlags data{.name = "fashion-mnist", .rules = "30000-59999 per-class:100"};
  std::string model, state, output, page, key, ids, ids_file, where, subset, loss = "mse";
  std::optional<std::string> rank;
  double l2 = 0;
  int64_t crossover = -1;
  int64_t label = no_label;
  bool dry_run = false, compact = false, purge = false;
};

// A model that was not fine-tuned is prepared where it stands, θ* = θ0: what fine-tuning would have written about
// itself comes from the flags.
Dataset describe_unchanged(const Flags& f, Checkpoint& checkpoint) {
  require_usage(!(f.l2 < 0), "--l2 must be positive, got {}", f.l2);
  require_usage(!f.subset.empty() && f.l2 > 0,
                "{} was not written by `fastntk finetune`; to prepare it as it stands, --subset and --l2 say which "
                "parameters are tuned and with which λ",
                f.model);
  auto& m = checkpoint.metadata;
  DataFlags data_flags = f.data;
  data_flags.transform = transform_of(f.data, m);
  Dataset data = load_samples(data_flags, f.common, Part::train);
  check_channels(data, checkpoint);
  put_transform(m, data_flags.transform, data.channels());
  put_data(m, "finetune.data.", data_flags, data);
  m["finetune.seed"] = std::to_string(f.common.seed);
  m["finetune.subset"] = f.subset;
  m["finetune.loss"] = f.loss;
  m["finetune.l2"] = fmt::format("{:.17g}", f.l2);
  return data;
}

void run_prepare(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  Checkpoint checkpoint = open_model(f.model, "");
  checkpoint.model->to(device_of(f.common));
  check_fine_tuned(checkpoint.metadata, f.model);
  const bool tuned = checkpoint.metadata.contains("finetune.subset");
  for (const char* const flag : {"--subset", "--l2", "--loss", "--data", "--samples", "--transform"})
    require_usage(!tuned || command.count(flag) == 0, "{} was fine-tuned: what {} would say is in its metadata already",
                  f.model, flag);
  const auto& m = checkpoint.metadata;
  const Dataset data = tuned ? load_finetune_data(m, f.model, f.common) : describe_unchanged(f, checkpoint);
  for (const auto& [flag, entry] : std::map<std::string, std::string>{{"subset", "subset"},
                                                                      {"loss", "loss"},
                                                                      {"l2", "l2"},
                                                                      {"data", "data.name"},
                                                                      {"samples", "data.rules"},
                                                                      {"transform", "data.transform"}})
    if (const auto at = m.find("finetune." + entry); at != m.end()) report.config[flag] = at->second;
  const SampleSource samples = sample_source(data, m, checkpoint.model->dtype());
  const std::string& subset = finetune_entry(m, "finetune.subset", f.model);
  const double l2 = finetune_number<double>(m, "finetune.l2", f.model);
  require_usage(l2 > 0, "{} was fine-tuned without an L2 term (--l2), so ρ = nλ = 0 and no closed form exists",
                f.model);
  const double ridge = static_cast<double>(samples.size()) * l2;
  const Tensor theta0 = tuned ? load_theta0(f.model) : gather(*checkpoint.model, choose(*checkpoint.model, subset));
  fmt::print("{}", beyond_the_objective(m));
  const Stopwatch clock;
  reset_peak_memory();
  const JacobianOptions sweeps{.memory = parse_bytes(f.common.memory)};
  if (f.rank) {
    const Rank rank = parse_rank(*f.rank);
    const RankFile rows = Prepared::prepare_rank(f.output, checkpoint.model, m, subset, theta0, samples,
                                                 finetune_entry(m, "finetune.loss", f.model), rank, sweeps);
    report.results = {{"first", static_cast<double>(rows.first)},
                      {"last", static_cast<double>(rows.last)},
                      {"seconds", clock.seconds()}};
    fmt::print("{}: rows of samples {} to {} of {}, {}; once all {} ranks are done, the same command without --rank\n",
               rows.file, rows.first, rows.last, samples.size(), format_duration(report.results["seconds"]),
               rank.count);
    return finish(report, f.common);
  }
  const Prepared state = Prepared::prepare(f.output, checkpoint.model, m, subset, theta0, samples,
                                           finetune_entry(m, "finetune.loss", f.model), ridge,
                                           {.jacobian = sweeps, .crossover = f.crossover});
  report.results = {{"n", static_cast<double>(samples.size())},
                    {"parameters", static_cast<double>(state.subset().size())},
                    {"rho", ridge},
                    {"crossover", static_cast<double>(state.crossover())},
                    {"seconds", clock.seconds()},
                    {"peak_bytes", static_cast<double>(memory_statistics().peak)},
                    {"peak_resident_bytes", static_cast<double>(peak_resident_bytes())}};
  // Of all rows: a forward pass, and for every class one more through the same products backwards.
  report.results["flops"] = static_cast<double>(samples.size()) *
                            static_cast<double>(1 + checkpoint.model.config.classes) *
                            forward_flops(*checkpoint.model, samples.at({0}).inputs);
  fmt::print(
      "{}: n = {}, P = {}, ρ = nλ = {:g} (fixed when samples leave), a new factor beyond {} rows (--crossover), {}, "
      "peak {}, {} "
      "resident\n",
      f.output, samples.size(), state.subset().size(), ridge, state.crossover(),
      format_duration(report.results["seconds"]), format_bytes(report.results["peak_bytes"]),
      format_bytes(report.results["peak_resident_bytes"]));
  finish(report, f.common);
}

// What the flags choose among the samples of the state, by the rules of datasets/split.h.
std::vector<int64_t> chosen_ids(const Flags& f, const Prepared& state) {
  const auto n = static_cast<int64_t>(state.ids().size());
  const Dataset all = Dataset(f.state, Tensor::zeros({n, 1, 1, 1}, DType::uint8),
                              Tensor::from<int64_t>({n}, state.labels()), state.checkpoint().model.config.classes)
                          .with_ids(state.ids());
  const Dataset present = all.subset(state.present());
  std::vector<Split> rules;
  if (!f.ids.empty()) rules.push_back(Split::ids_in_text(f.ids));
  if (!f.ids_file.empty()) rules.push_back(Split::ids_in_file(f.ids_file));
  if (f.label != no_label) rules.push_back(Split::parse(fmt::format("class:{}", f.label)));
  if (!f.where.empty()) rules.push_back(Split::parse(f.where));
  require_usage(rules.size() == 1, "one of --ids, --ids-file, --class and --where says what to forget, got {} of them",
                rules.size());
  // Of ids that were forgotten before the state says so.
  const bool by_id = !f.ids.empty() || !f.ids_file.empty();
  return rules[0].select(by_id ? all : present, f.common.seed).ids();
}

void run_forget(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  check_outputs({f.output, f.page});  // before what cannot be taken back
  std::optional<SignatureKey> key;
  if (!f.key.empty()) key = SignatureKey::read_private(f.key);
  const Stopwatch clock;
  std::optional<Prepared> opened;
  const Phase opening = measure("open", [&] {
    opened = Prepared::open(f.state, f.dry_run ? Journal::Access::read : Journal::Access::write, device_of(f.common));
  });
  Prepared& state = *opened;
  const bool chooses = !f.ids.empty() || !f.ids_file.empty() || f.label != no_label || !f.where.empty();
  if (f.compact) {
    require_usage(!f.dry_run && !f.purge && !chooses, "--compact is a request of its own, without samples to forget");
    require_usage(f.output.empty() && f.page.empty() && f.key.empty(),
                  "--compact changes no weights and makes no record: -o, --html and --sign do not go with it");
    const bool folded = state.compact();
    fmt::print("{}, {}\n", folded ? "rows that left are folded into a new factor" : "nothing to fold",
               format_duration(clock.seconds()));
    return finish(report, f.common);
  }
  require_usage(!f.purge || !f.dry_run, "--purge cannot be tried by a --dry-run: what it removes is gone");
  require_usage(!f.dry_run || (f.output.empty() && f.key.empty()),
                "a --dry-run has no new weights and no record: -o and --sign do not go with it");
  RequestOptions options{.dry_run = f.dry_run,
                         .most_affected = f.dry_run ? affected_shown : 0,
                         .command = report.command,
                         .phases = {opening},
                         .key = key ? &*key : nullptr,
                         .jacobian = {.memory = parse_bytes(f.common.memory)}};
  RequestRecord r;
  if (chooses || !f.purge) {
    r = state.forget(chosen_ids(f, state), options);
    print_request(r);
    options.phases.clear();
  }
  if (f.purge) {
    r = state.purge(options);
    fmt::print("entry {}: rows, weights and factors that had samples which left are removed; {} remain\n", r.entry,
               r.n_after);
  }
  const double seconds = clock.seconds();
  if (!r.most_affected.empty()) fmt::print("of the {} that remain, the logits of these change most:\n", r.n_after);
  for (const SampleChange& s : r.most_affected)
    fmt::print("  id {:>8}  class {:>3}  by {:.3e}\n", s.id, s.label, s.predicted);
  write_outcome({f.output, f.page}, state, r);
  fmt::print("{}\n", format_duration(seconds));
  put_request(report, r, seconds);
  finish(report, f.common);
}

}  // namespace

void add_prepare(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("prepare", "compute once what requests to forget are served from");
  c->add_option("model", f->model,
                "a model written by `fastntk finetune`, whose settings are in its metadata; or another with --subset "
                "and --l2, which is prepared as it stands")
      ->required();
  c->add_option("-o,--output", f->output, "the folder to make")->required();
  c->add_option("--subset", f->subset, "parameters that are tuned");
  c->add_option("--l2", f->l2, "λ of ½λ‖θ − θ0‖²; ρ = nλ");
  c->add_option("--loss", f->loss, "mse or ce")->capture_default_str();
  c->add_option("--crossover", f->crossover,
                "rows that may leave before a new factor is made; -1: as measured on this machine. It is part of what "
                "the bits of later weights depend on")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 20))
      ->capture_default_str();
  c->add_option("--rank", f->rank,
                "K/N: compute the rows of the K-th of N parts of the samples alone (K from 0), for a run without "
                "--rank after them; each in a process, on a GPU or a machine of its own");
  add_data_flags(*c, f->data, "its data", "which samples of the training part");
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] {
    settle_rules(*c, "--samples", f->data);
    run_prepare(*f, *c);
  });
}

void add_forget(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("forget", "take samples away from a prepared state");
  c->add_option("state", f->state, "folder made by `fastntk prepare`")->required();
  c->add_option("--ids", f->ids, "ids and ranges, e.g. 1,5,9-12");
  c->add_option("--ids-file", f->ids_file, "the same from a file");
  c->add_option("--class", f->label, "all that are left of a class")->check(not_negative());
  c->add_option("--where", f->where, "rules that choose among those left: 'class:9 first:3', random:0.1, …");
  c->add_flag("--dry-run", f->dry_run, "say what would change; write nothing to the state");
  c->add_flag("--compact", f->compact, "instead: fold the rows that left into a new factor");
  c->add_flag(
      "--purge", f->purge,
      "afterwards, or alone: remove what the state keeps of samples that left: rows, logits, inputs and hashes, "
      "weights and factors of before. Earlier entries can be verified no more");
  c->add_option("--sign", f->key, "sign the record with the private Ed25519 key in this PEM file");
  add_outcome_flags(*c, f->output, f->page);
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] { run_forget(*f, *c); });
}

}  // namespace fastntk::apps
