// What a command found, for people (a table) and for programs (JSON, docs/report-format.md).
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "unlearn/phase.h"
#include "unlearn/relinearise.h"

namespace fastntk {

/// One method on one task: a model, and what was measured of it. NaN stands for what could not be computed.
struct ReportRow {
  std::string forget, subset, loss, method;
  uint64_t seed = 0;
  int64_t parameters = 0;
  double rho = 0;
  std::map<std::string, double> metrics;   ///< names of docs/metrics.md
  std::map<std::string, std::string> why;  ///< for a metric that is NaN: the reason
  double objective_retain = 0, gradient_norm_retain = 0;
  double gradient_norm_relative = 0;                  ///< gradient norm over its value at θ0
  std::map<std::string, double> linearisation_error;  ///< forget, retain, test; empty where there is no update
  std::vector<SolveReport> solves;
  std::vector<RelineariseStep> relinearisations;
  std::vector<Phase> phases;
  double seconds() const;
  size_t peak_bytes() const;
};

struct Report {
  std::vector<std::string> command;
  std::map<std::string, std::string> config;
  std::map<std::string, std::string> data;
  std::map<std::string, double> data_numbers;  ///< n, classes, …
  std::vector<ReportRow> rows;
  std::map<std::string, double> results;  ///< single numbers of commands that have no rows
  std::map<std::string, std::string> notes;

  std::string json() const;
  void write_json(const std::string& path) const;  ///< atomically
};

/// The rows as a table, one block per (loss, subset, forget).
std::string table(const std::vector<ReportRow>& rows);
/// The same in Markdown.
std::string markdown_table(const std::vector<ReportRow>& rows);

}  // namespace fastntk
