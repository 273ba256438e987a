#include "unlearn/experiment.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/parse_number.h"
#include "engine/progress.h"
#include "unlearn/metrics.h"

namespace fastntk {
namespace {

// "RULE", "relinearise:K" or "RULE+relinearise:K".
struct ParsedRule {
  std::string closed_form;  // empty if there is none
  int steps = 0;            // of relinearise
};

ParsedRule parse_rule(const std::string& text, const std::string& loss) {
  const std::string prefix = "relinearise:";
  const size_t at = text.starts_with(prefix) ? 0 : text.find("+" + prefix);
  ParsedRule rule;
  if (at != 0) {
    rule.closed_form = text.substr(0, at);
    check_rule(rule.closed_form, loss);
  }
  if (at == std::string::npos) return rule;
  const std::string number = text.substr(at + prefix.size() + (at ? 1 : 0));
  rule.steps = parse_number<int>(number).value_or(0);
  require_usage(rule.steps >= 1, "'{}' is not a number of steps in the rule '{}'", number, text);
  return rule;
}

struct Logits {
  Tensor forget, retain, test;
};

// What is the same for all methods of one task.
class TaskRun {
 public:
  TaskRun(Module& model, const Subset& subset, const Finetuned& finetuned, const Samples& data, const Samples& test,
          const ForgetTask& task, const ExperimentConfig& config, FastNtk* rules, const Phase& jacobian_phase)
      : model_(model),
        subset_(subset),
        finetuned_(finetuned),
        task_(task),
        config_(config),
        rules_(rules),
        jacobian_phase_(jacobian_phase),
        loss_(find_loss(config.finetune.loss)),
        finetuned_samples_(data.size()),
        rho_(ridge_of(config.finetune, data.size())),
        forget_(select(data, task.forget)),
        retain_(select(data, complement(task.forget, data.size()))) {
    Positions kept;
    const auto labels = test.labels.to_vector<int64_t>();
    for (int64_t i = 0; i < test.size(); i++)
      if (std::find(task.forgotten_classes.begin(), task.forgotten_classes.end(), labels[static_cast<size_t>(i)]) ==
          task.forgotten_classes.end())
        kept.push_back(i);
    test_ = select(test, kept);
    scatter(model_, subset_, finetuned_.theta0);
    // The oracle's own objective: the mean over D_r with the same λ, i.e. ρ_r = n_r λ.
    rho_retain_ = ridge_of(config.finetune, retain_.size());
    gradient_at_start_ = objective(model_, subset_, retain_, loss_, rho_retain_, finetuned_.theta0).gradient_norm;
  }

  std::vector<ReportRow> run(const std::function<void(const ReportRow&)>& on_row, Tensor* last_theta) {
    oracles();
    std::vector<ReportRow> rows;
    const auto add = [&](ReportRow row) {
      if (on_row) on_row(row);
      rows.push_back(std::move(row));
    };
    add(row("theta0", finetuned_.theta0, 0, {}, false));
    add(row("original", finetuned_.theta_star, config_.finetune.seed, {finetuned_.phase}, false));
    for (const Oracle& o : oracles_) add(row("oracle", o.theta, o.seed, {o.phase}, false));
    for (const std::string& rule : config_.rules) add(method(rule));
    if (last_theta) *last_theta = last_theta_;
    scatter(model_, subset_, finetuned_.theta_star);
    return rows;
  }

 private:
  struct Oracle {
    uint64_t seed;
    Tensor theta;
    Phase phase;
  };

  Logits logits_now() const {
    const auto of = [&](const Samples& s) { return s.size() ? predict(model_, s.inputs) : Tensor(); };
    return {of(forget_), of(retain_), of(test_)};
  }

  // Retraining on D_r from θ0, one after another.
  void oracles() {
    for (int s = 0; s <= config_.oracle_seeds; s++) {
      TrainConfig train = config_.finetune;
      train.seed += static_cast<uint64_t>(s);
      scatter(model_, subset_, finetuned_.theta0);
      const std::string title =
          fmt::format("oracle {} ({}, {}, seed {})", task_.name, train.loss, config_.subset, train.seed);
      std::string file;
      if (!config_.checkpoints.empty()) {
        file = fmt::format("{}/oracle-{}-{}-{}-{}-{}.partial.safetensors", config_.checkpoints, finetuned_samples_,
                           task_.name, train.loss, config_.subset, train.seed);
        std::replace_if(
            file.begin() + static_cast<long>(config_.checkpoints.size()) + 1, file.end(),
            [](char c) { return c == ':' || c == '+' || c == '*' || c == '/'; }, '_');
      }
      Finetuned result = finetune(model_, subset_, retain_, train, title, file);
      result.phase.name = "retrain";
      if (!file.empty()) std::filesystem::remove(file);
      if (s == 0) reference_ = logits_now();
      oracles_.push_back({train.seed, result.theta_star, result.phase});
    }
  }

  ReportRow method(const std::string& rule) {
    const ParsedRule parsed = parse_rule(rule, config_.finetune.loss);
    Tensor theta = finetuned_.theta_star;
    ReportRow extra;
    if (!parsed.closed_form.empty()) {
      require(rules_ != nullptr, "the rule '{}' needs a linearised set", rule);
      const Update update = rules_->update(parsed.closed_form);
      extra.phases.push_back(jacobian_phase_);
      extra.phases.insert(extra.phases.end(), update.phases.begin(), update.phases.end());
      extra.solves = update.solves;
      theta = update.theta;
    }
    scatter(model_, subset_, theta);
    if (parsed.steps > 0) {
      JacobianOptions quiet = config_.jacobian;
      quiet.title.clear();
      extra.phases.push_back(measure("relinearise", [&] {
        extra.relinearisations =
            relinearise(model_, subset_, retain_, loss_, rho_retain_, finetuned_.theta0, parsed.steps, quiet);
      }));
    }
    ReportRow out = row(rule, gather(model_, subset_), config_.finetune.seed, extra.phases, true);
    out.solves = extra.solves;
    out.relinearisations = extra.relinearisations;
    return out;
  }

  static void without_oracle(ReportRow& r, const std::string& metric) {
    r.metrics[metric] = std::nan("");
    r.why[metric] = "no oracle was run";
  }

  // Everything that is measured of θ.
  ReportRow row(const std::string& name, const Tensor& theta, uint64_t seed, std::vector<Phase> phases,
                bool is_update) {
    scatter(model_, subset_, theta);
    last_theta_ = theta;
    const Logits now = logits_now();
    ReportRow r;
    r.forget = task_.name, r.subset = config_.subset, r.loss = config_.finetune.loss, r.method = name;
    r.seed = seed, r.parameters = subset_.size(), r.rho = rho_;
    r.phases = std::move(phases);
    const auto set = [&](const std::string& set_name, const Tensor& logits, const Tensor& reference,
                         const Samples& samples) {
      for (const char* const metric : {"acc_", "loss_", "js_", "activation_l1_"})
        if (!logits.defined()) {
          r.metrics[metric + set_name] = std::nan("");
          r.why[metric + set_name] = "the set is empty";
        }
      if (!logits.defined()) return;
      r.metrics["acc_" + set_name] = accuracy(logits, samples.labels);
      r.metrics["loss_" + set_name] = mean_cross_entropy(logits, samples.labels);
      if (reference.defined()) {
        r.metrics["js_" + set_name] = jensen_shannon(logits, reference);
        r.metrics["activation_l1_" + set_name] = activation_distance(logits, reference);
      } else {
        for (const char* const metric : {"js_", "activation_l1_"}) without_oracle(r, metric + set_name);
      }
    };
    set("forget", now.forget, reference_.forget, forget_);
    set("retain", now.retain, reference_.retain, retain_);
    set("test", now.test, reference_.test, test_);
    if (oracles_.empty())
      without_oracle(r, "weight_distance");
    else
      r.metrics["weight_distance"] = weight_distance(theta.to_vector<double>(), oracles_[0].theta.to_vector<double>(),
                                                     finetuned_.theta_star.to_vector<double>());
    const Objective o = objective(model_, subset_, retain_, loss_, rho_retain_, finetuned_.theta0);
    r.objective_retain = o.value();
    r.gradient_norm_retain = o.gradient_norm;
    r.gradient_norm_relative = o.gradient_norm / gradient_at_start_;
    if (is_update) {
      const auto theta_now = theta.to_vector<double>(), star = finetuned_.theta_star.to_vector<double>();
      std::vector<double> delta(theta_now.size());
      for (size_t i = 0; i < delta.size(); i++) delta[i] = theta_now[i] - star[i];
      r.metrics["update_norm"] = norm(delta);
      if (!oracles_.empty()) {
        std::vector<double> to_oracle = oracles_[0].theta.to_vector<double>();
        for (size_t i = 0; i < to_oracle.size(); i++) to_oracle[i] -= star[i];
        r.metrics["update_cosine"] = cosine(delta, to_oracle);
      }
      const Tensor direction = Tensor::from<double>({subset_.size()}, delta);
      scatter(model_, subset_, finetuned_.theta_star);
      const auto error = [&](const Samples& s, const Tensor& logits) {
        return s.size() ? linearisation_error(directional_derivative(model_, subset_, s.inputs, direction), logits)
                        : std::nan("");
      };
      r.linearisation_error = {{"forget", error(forget_, now.forget)},
                               {"retain", error(retain_, now.retain)},
                               {"test", error(test_, now.test)}};
    }
    return r;
  }

  Module& model_;
  const Subset& subset_;
  const Finetuned& finetuned_;
  const ForgetTask& task_;
  const ExperimentConfig& config_;
  FastNtk* rules_;  // null where no rule is in closed form
  const Phase& jacobian_phase_;
  const Loss& loss_;
  int64_t finetuned_samples_;
  double rho_, rho_retain_ = 0, gradient_at_start_ = 0;
  Samples forget_, retain_, test_;
  Logits reference_;
  std::vector<Oracle> oracles_;
  Tensor last_theta_;
};

}  // namespace

Finetuned finetune(Module& model, const Subset& subset, const Samples& data, const TrainConfig& config,
                   const std::string& title, const std::string& checkpoint) {
  Finetuned out{.theta0 = gather(model, subset)};
  out.phase = measure("finetune", [&] {
    train(model, subset, data, config, title,
          checkpoint.empty() ? std::nullopt : std::optional<std::string>(checkpoint));
  });
  out.theta_star = gather(model, subset);
  return out;
}

std::vector<ReportRow> run_tasks(Module& model, const Finetuned& finetuned, const Samples& data, const Samples& test,
                                 const std::vector<ForgetTask>& tasks, const ExperimentConfig& config,
                                 const std::function<void(const ReportRow&)>& on_row, Tensor* last_theta) {
  const Subset subset = choose(model, config.subset);
  scatter(model, subset, finetuned.theta_star);
  LinearisedSet linearised;
  // All rules are read before the first oracle is trained.
  bool closed_form = false;
  for (const std::string& rule : config.rules) {
    const ParsedRule parsed = parse_rule(rule, config.finetune.loss);
    closed_form |= !parsed.closed_form.empty();
    require_usage(config.representation != Representation::matrix_free ||
                      (parsed.steps == 0 && !parsed.closed_form.starts_with("newton")),
                  "the rule '{}' needs rows of the Jacobian, which the matrix-free representation does not keep", rule);
  }
  Phase phase{.name = "jacobian"};
  if (closed_form)
    phase = measure("jacobian", [&] {
      if (config.representation == Representation::matrix_free) {
        linearised = {.logits = predict(model, data.inputs),
                      .labels = data.labels,
                      .products = std::make_shared<JacobianOperator>(model, subset, data.inputs, finetuned.theta_star)};
        return;
      }
      // Rows are left where the network is.
      Jacobian j = jacobian(model, subset, data.inputs.to(model.device()), config.jacobian);
      linearised = {std::move(j.rows), j.logits.to(Device::cpu), data.labels};
    });
  const Loss& loss = find_loss(config.finetune.loss);
  const double rho = ridge_of(config.finetune, data.size());
  std::optional<FastNtk> on_data;  // what all tasks share: the systems of D
  std::vector<ReportRow> rows;
  for (const ForgetTask& task : tasks) {
    std::optional<FastNtk> rules;
    if (closed_form) {
      const auto retained = data.size() - static_cast<int64_t>(task.forget.size());
      const double rho_retain = config.mean_convention ? ridge_of(config.finetune, retained) : rho;
      if (!on_data)
        on_data.emplace(linearised, Positions{}, finetuned.theta0, finetuned.theta_star, loss, rho, rho,
                        config.representation);
      rules.emplace(on_data->for_request(task.forget, rho_retain));
    }
    TaskRun run(model, subset, finetuned, data, test, task, config, rules ? &*rules : nullptr, phase);
    const auto more = run.run(on_row, last_theta);
    rows.insert(rows.end(), more.begin(), more.end());
  }
  return rows;
}

}  // namespace fastntk
