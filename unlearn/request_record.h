// The record of a request: what was asked, what was done, and what can be checked of it afterwards (docs/deletion.md).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/signature.h"
#include "engine/tensor.h"
#include "unlearn/phase.h"

namespace fastntk {

/// How the logits of one sample change.
struct SampleChange {
  int64_t id = 0, label = 0;
  double predicted = 0;  ///< by the linear model
  double actual = 0;     ///< of the network; 0 where it was not run
  double error = 0;      ///< norm of the difference of the two
};

/// What one request did. `result` follows from state and request alone: on one build and kernel set it is the same, bit
/// for bit, whenever and wherever the request is made. `measured` is what this run took.
struct RequestRecord {
  std::string request;                        ///< "forget", "restore", "add" or "purge"
  int64_t entry = 0;                          ///< its number in the journal; 0 for a dry run
  std::vector<int64_t> ids;                   ///< of the samples that left
  std::vector<int64_t> arrived;               ///< of those that came
  int64_t restored_to = 0;                    ///< "restore": the entry that it went back to
  std::string samples_sha256;                 ///< of the hashes of the samples that left, by id
  std::string arrived_sha256;                 ///< of those that came
  std::string retained_sha256;                ///< of the hashes of the samples that are there after it, by position
  std::string data_sha256;                    ///< of the hashes of all samples that were prepared, by position
  std::string weights_before, weights_after;  ///< SHA-256 of θ, float64
  std::string previous_hash;                  ///< of the journal before this request
  std::string rule;                           ///< which of `fastntk unlearn`'s it is
  std::string loss, subset;
  double ridge = 0;
  int64_t parameters = 0, classes = 0, n_before = 0, n_after = 0;
  std::string representation;  ///< "woodbury" on the kept factor, or "factor" (anew)
  double relative_residual = 0, condition_bound = 0, smallest_eigenvalue = 1;
  double update_norm = 0;  ///< ‖θ − θ before‖
  /// On the probe: ‖J(θ−θ*)‖, ‖f(θ)−f(θ*)‖, and ‖f(θ) − f_lin(θ)‖ over the first. Zero where nothing is left of it.
  double predicted_change = 0, actual_change = 0, linearisation_error = 0;
  /// ‖A_θ − A‖_F / ‖A‖_F, A as it is kept and A_θ from rows at θ, both over the first samples of the probe.
  double matrix_distance = 0;
  std::string advice;               ///< what these say about going on
  std::vector<SampleChange> probe;  ///< the same sample by sample, by position
  /// Of all samples that remain those whose logits change most by this request, ‖J(θ − θ before)‖ falling. Where asked.
  std::vector<SampleChange> most_affected;

  /// Losses with curvature: how the optimum of the linearised model was found (unlearn/linear_optimum.h).
  struct Newton {
    double start_gradient_norm = 0, gradient_norm = 0, distance_bound = 0;
    /// ‖θ with Λ frozen − θ‖ / ‖θ − θ*‖
    double frozen_difference = 0;
    int chord_steps = 0, newton_steps = 0, passes = 0;
  };
  std::optional<Newton> newton;

  std::vector<std::string> command;
  std::vector<Phase> phases;
  Tensor theta;  ///< [P] float64, the new weights

  /// The part `result`: JSON with its keys in alphabetical order and without spaces. Journal and signature cover these
  /// bytes.
  std::string result() const;
  /// The whole record: `result`, `measured`, with a key the signature of result(), and the SHA-256 of all of it.
  std::string json(const SignatureKey* key = nullptr) const;
};

/// Program version, instruction set and BLAS kernel set, on which bits depend.
std::string this_program();

}  // namespace fastntk
