#include "unlearn/request_record.h"

#include <fmt/chrono.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <span>

#include "engine/blas.h"
#include "engine/cpu/dispatch.h"
#include "engine/parallel.h"
#include "engine/sha256.h"

namespace fastntk {
namespace {

using nlohmann::json;

json result_of(const RequestRecord& r) {
  json out = {{"request", r.request},
              {"entry", r.entry},
              {"ids", r.ids},
              {"ids_sha256", sha256(std::as_bytes(std::span(r.ids)))},
              {"samples_sha256", r.samples_sha256},
              {"retained_sha256", r.retained_sha256},
              {"data_sha256", r.data_sha256},
              {"weights_before_sha256", r.weights_before},
              {"weights_after_sha256", r.weights_after},
              {"journal_before", r.previous_hash},
              {"rule", r.rule},
              {"convention", "sum"},
              {"loss", r.loss},
              {"subset", r.subset},
              {"rho", r.ridge},
              {"parameters", r.parameters},
              {"classes", r.classes},
              {"n_before", r.n_before},
              {"n_after", r.n_after},
              {"representation", "primal, " + r.representation},
              {"relative_residual", r.relative_residual},
              {"condition_bound", r.condition_bound},
              {"smallest_eigenvalue", r.smallest_eigenvalue},
              {"update_norm", r.update_norm},
              {"predicted_change", r.predicted_change},
              {"actual_change", r.actual_change},
              {"linearisation_error", r.linearisation_error},
              {"matrix_distance", r.matrix_distance},
              {"advice", r.advice}};
  if (r.request == "add" || r.request == "restore") {
    out["arrived"] = r.arrived, out["arrived_ids_sha256"] = sha256(std::as_bytes(std::span(r.arrived)));
    out["arrived_sha256"] = r.arrived_sha256;
  }
  if (r.request == "restore") out["restored_to"] = r.restored_to;
  if (r.newton)
    out["newton"] = {{"start_gradient_norm", r.newton->start_gradient_norm},
                     {"gradient_norm", r.newton->gradient_norm},
                     {"distance_bound", r.newton->distance_bound},
                     {"frozen_difference", r.newton->frozen_difference},
                     {"chord_steps", r.newton->chord_steps},
                     {"newton_steps", r.newton->newton_steps},
                     {"passes", r.newton->passes}};
  json& probe = out["probe"] = json::object();
  for (const char* const name : {"ids", "labels", "predicted_change", "actual_change", "error"})
    probe[name] = json::array();
  for (const SampleChange& s : r.probe) {
    probe["ids"].push_back(s.id), probe["labels"].push_back(s.label);
    probe["predicted_change"].push_back(s.predicted), probe["actual_change"].push_back(s.actual);
    probe["error"].push_back(s.error);
  }
  for (const SampleChange& s : r.most_affected)
    out["most_affected"].push_back({{"id", s.id}, {"label", s.label}, {"predicted_change", s.predicted}});
  return out;
}

json measured_of(const RequestRecord& r) {
  json out = {
      {"date",
       fmt::format("{:%FT%TZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())))},
      {"command", r.command},
      {"program", this_program()},
      {"threads", thread_count()},
      {"peak_resident_bytes", peak_resident_bytes()},
      {"phases", json::array()}};
  for (const Phase& p : r.phases)
    out["phases"].push_back({{"name", p.name}, {"seconds", p.seconds}, {"peak_bytes", p.peak_bytes}});
  return out;
}

}  // namespace

std::string this_program() {
  return fmt::format("fastntk {}, {} kernels, {} {}", FASTNTK_VERSION, cpu::name_of(cpu::isa()), blas_version(),
                     blas_kernel_set());
}

std::string RequestRecord::result() const { return result_of(*this).dump(); }

std::string RequestRecord::json(const SignatureKey* key) const {
  // A command line need not be UTF-8.
  constexpr auto replace = nlohmann::json::error_handler_t::replace;
  nlohmann::json record = {{"result", result_of(*this)}, {"measured", measured_of(*this)}};
  if (key)
    record["signature"] = {
        {"algorithm", "Ed25519"}, {"key_sha256", key->fingerprint()}, {"value", key->sign(result())}};
  record["sha256"] = sha256(record.dump(-1, ' ', false, replace));
  return record.dump(1, ' ', false, replace) + "\n";
}

}  // namespace fastntk
