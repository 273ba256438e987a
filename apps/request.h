// What the commands share that make requests to a prepared state.
#pragma once
#include <string>

#include "apps/common.h"
#include "unlearn/prepared.h"

namespace fastntk::apps {

/// What a request did, in two lines, or three where the loss has curvature.
void print_request(const RequestRecord& record);

/// The numbers of a request for --json.
void put_request(Report& report, const RequestRecord& record, double seconds);

/// Files that a request may write beside the state; empty: not.
struct Outcome {
  std::string model;  ///< with the new weights
  std::string page;   ///< the record as a page
};
void add_outcome_flags(CLI::App& command, std::string& model, std::string& page);
void write_outcome(const Outcome& outcome, const Prepared& state, const RequestRecord& record);

}  // namespace fastntk::apps
