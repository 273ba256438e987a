// One unlearning experiment: fine-tune on D, forget, retrain oracles, and measure every method against them.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "training/trainer.h"
#include "unlearn/fast_ntk.h"
#include "unlearn/report.h"

namespace fastntk {

/// What is to be forgotten: positions in D (ascending), and the classes that the test set loses with it.
struct ForgetTask {
  std::string name;  ///< "class:9", "random:0.1"
  Positions forget;
  std::vector<int64_t> forgotten_classes;
};

struct ExperimentConfig {
  std::string subset = "bn+head";
  TrainConfig finetune;            ///< its l2 is λ; ρ = nλ
  std::vector<std::string> rules;  ///< closed forms, "relinearise:K" from θ*, or "RULE+relinearise:K"
  /// ρ on D_r: n_r λ, as retraining has it (mean), or nλ, as if ρ stayed when samples leave (sum).
  bool mean_convention = true;
  int oracle_seeds = 0;  ///< oracles besides the one with the seed of fine-tuning; -1: none at all
  JacobianOptions jacobian;
  /// Of the systems of closed forms; matrix-free: no Jacobian is kept, and there are no rules by Newton's method.
  Representation representation = Representation::automatic;
  std::string checkpoints;  ///< folder for the checkpoints of interrupted training; none if empty
};

/// ρ = nλ for the mean loss over n samples with ½λ‖θ−θ0‖².
inline double ridge_of(const TrainConfig& finetune, int64_t n) { return static_cast<double>(n) * finetune.l2; }

/// θ* from θ0: `model` holds θ0 before and θ* after; returned are θ0, θ* [P] and what it took.
struct Finetuned {
  Tensor theta0, theta_star;
  Phase phase;
};
Finetuned finetune(Module& model, const Subset& subset, const Samples& data, const TrainConfig& config,
                   const std::string& title, const std::string& checkpoint);

/// Runs all tasks on one fine-tuned model. `model` holds θ* (and is left there); theta0 is where fine-tuning started.
/// Rows per task: θ0, original, oracles (the seed of fine-tuning first: it is the reference), then the rules. `on_row`
/// sees each row as it is ready; `last_theta` receives the parameters of the last one.
std::vector<ReportRow> run_tasks(Module& model, const Finetuned& finetuned, const Samples& data, const Samples& test,
                                 const std::vector<ForgetTask>& tasks, const ExperimentConfig& config,
                                 const std::function<void(const ReportRow&)>& on_row = {},
                                 Tensor* last_theta = nullptr);

}  // namespace fastntk
