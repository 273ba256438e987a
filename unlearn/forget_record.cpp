// The record of a request as JSON.
#include <cmath>
#include <nlohmann/json.hpp>

#include "unlearn/prepared.h"

namespace fastntk {

std::string ForgetRecord::json() const {
  nlohmann::json result = {{"request", "forget"},
                           {"entry", entry},
                           {"ids", ids},
                           {"samples_sha256", samples_sha256},
                           {"retained_sha256", retained_sha256},
                           {"weights_before_sha256", weights_before},
                           {"weights_after_sha256", weights_after},
                           {"journal_before", previous_hash},
                           {"rule", rule()},
                           {"convention", "sum"},
                           {"loss", loss},
                           {"subset", subset},
                           {"rho", ridge},
                           {"parameters", parameters},
                           {"classes", classes},
                           {"n_before", n_before},
                           {"n_after", n_after},
                           {"representation", "primal, " + representation},
                           {"relative_residual", relative_residual},
                           {"condition_bound", condition_bound},
                           {"smallest_eigenvalue", smallest_eigenvalue},
                           {"update_norm", update_norm},
                           {"predicted_change", predicted_change},
                           {"actual_change", actual_change},
                           {"linearisation_error", linearisation_error},
                           {"advice", advice}};
  if (newton)
    result["newton"] = {{"start_gradient_norm", newton->start_gradient_norm},
                        {"gradient_norm", newton->gradient_norm},
                        {"distance_bound", newton->distance_bound},
                        {"frozen_difference", newton->frozen_difference},
                        {"chord_steps", newton->chord_steps},
                        {"newton_steps", newton->newton_steps},
                        {"passes", newton->passes}};
  nlohmann::json measured = {{"program_version", FASTNTK_VERSION}, {"phases", nlohmann::json::array()}};
  for (const Phase& p : phases)
    measured["phases"].push_back({{"name", p.name}, {"seconds", p.seconds}, {"peak_bytes", p.peak_bytes}});
  return nlohmann::json{{"result", result}, {"measured", measured}}.dump(2) + "\n";
}

}  // namespace fastntk
