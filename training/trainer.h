// Training: pre-training of a whole model, fine-tuning of a subset, with checkpoints from which it continues to the
// same bits.
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "datasets/samples.h"
#include "models/pass.h"
#include "training/augment.h"
#include "training/gradient.h"
#include "training/optimiser.h"
#include "training/schedule.h"

namespace fastntk {

struct TrainConfig {
  std::string loss = "ce";
  double label_smoothing = 0;
  OptimiserConfig optimiser;
  double learning_rate = 0.1;
  Schedule schedule;
  int64_t epochs = 1, batch_size = 128;
  /// λ: ½ λ ‖θ − θ0‖² is added to the mean loss, θ0 being the parameters at the start.
  double l2 = 0;
  Mode mode = Mode::train;  ///< eval for fine-tuning: batch norm keeps its running statistics
  Augmentation augmentation;
  uint64_t seed = 0;  ///< of the order of the batches, of the augmentation and of dropout
  /// Stop after this many optimiser steps although the schedule goes on (0: never). For tests of a prefix of a long
  /// run.
  int64_t stop_after_steps = 0;
  /// Blocks of the model run again instead of keeping what they computed: the same bits from less memory.
  bool recompute = false;
  /// What else a checkpoint is told apart by: the configuration of the network, of which the parameters do not say all.
  std::string network = {};

  /// Everything that the bits depend on as text, for metadata and for recognising a checkpoint.
  std::map<std::string, std::string> settings() const;
};

struct TrainResult {
  std::vector<double> epoch_loss;  ///< mean loss over each epoch, during training (without the L2 term)
  int64_t steps = 0;
  double seconds = 0;
};

/// Trains the parameters of `subset` in place. With a checkpoint path, the state is saved there about every ten
/// seconds and on an interrupt; if the file is there at the start and belongs to the same run (model at the start,
/// settings, data, subset), training continues from it, to the bits that an uninterrupted run gives. The file is there
/// at the end as well, with the state of the last step: it can be removed once the result is on the disk. `title` names
/// the run in its progress lines.
TrainResult train(Module& model, const Subset& subset, const Samples& samples, const TrainConfig& config,
                  const std::string& title, const std::optional<std::string>& checkpoint = {});

}  // namespace fastntk
