#include "unlearn/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/file.h"
#include "engine/progress.h"

namespace fastntk {
namespace {

using nlohmann::json;

// NaN and infinity have no JSON: null, and a sibling that says why.
void put(json& object, const std::string& key, double value, const std::string& why = "not finite") {
  if (std::isfinite(value)) {
    object[key] = value;
  } else {
    object[key] = nullptr;
    object[key + "_why"] = why;
  }
}

json to_json(const SolveReport& s) {
  json j = {{"name", s.name},
            {"representation", s.representation},
            {"unknowns", s.unknowns},
            {"rho", s.ridge},
            {"refinement_steps", s.refinement_steps}};
  put(j, "relative_residual", s.relative_residual);
  put(j, "condition_estimate", s.condition_estimate);
  return j;
}

json to_json(const ReportRow& row) {
  json j = {{"forget", row.forget}, {"subset", row.subset}, {"loss", row.loss},
            {"method", row.method}, {"seed", row.seed},     {"parameters", row.parameters}};
  put(j, "rho", row.rho);
  j["metrics"] = json::object();
  for (const auto& [name, value] : row.metrics) {
    const auto why = row.why.find(name);
    put(j["metrics"], name, value, why == row.why.end() ? "not finite" : why->second);
  }
  put(j, "objective_retain", row.objective_retain);
  put(j, "gradient_norm_retain", row.gradient_norm_retain);
  put(j, "gradient_norm_relative", row.gradient_norm_relative);
  const auto is_empty = [&](const std::string& set) {
    const auto at = row.metrics.find("acc_" + set);
    return at != row.metrics.end() && std::isnan(at->second);
  };
  if (!row.linearisation_error.empty()) {
    j["linearisation_error"] = json::object();
    for (const auto& [name, value] : row.linearisation_error)
      put(j["linearisation_error"], name, value, is_empty(name) ? "the set is empty" : "not finite");
  }
  for (const auto& s : row.solves) j["solves"].push_back(to_json(s));
  for (const auto& s : row.relinearisations) {
    json step = {{"accepted", s.accepted}, {"rejected", s.rejected}, {"damping", s.damping}};
    put(step, "objective_before", s.objective_before);
    put(step, "objective_after", s.objective_after);
    put(step, "gradient_norm_before", s.gradient_norm_before);
    if (s.accepted) step["solve"] = to_json(s.solve);
    j["relinearisations"].push_back(step);
  }
  j["phases"] = json::array();
  for (const auto& p : row.phases)
    j["phases"].push_back({{"name", p.name}, {"seconds", p.seconds}, {"peak_bytes", p.peak_bytes}});
  j["seconds"] = row.seconds();
  j["peak_bytes"] = row.peak_bytes();
  return j;
}

double metric(const ReportRow& row, const std::string& name) {
  const auto it = row.metrics.find(name);
  return it == row.metrics.end() ? std::nan("") : it->second;
}

std::string cell(double value, const char* format) {
  return std::isnan(value) ? "–" : fmt::format(fmt::runtime(format), value);
}

// Columns of both tables: heading, and text of a row.
struct Column {
  std::string heading;
  std::string (*text)(const ReportRow&);
};
const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {"method",
       [](const ReportRow& r) { return r.method + (r.method == "oracle" ? fmt::format(" seed {}", r.seed) : ""); }},
      {"acc forget", [](const ReportRow& r) { return cell(metric(r, "acc_forget"), "{:.3f}"); }},
      {"retain", [](const ReportRow& r) { return cell(metric(r, "acc_retain"), "{:.3f}"); }},
      {"test", [](const ReportRow& r) { return cell(metric(r, "acc_test"), "{:.3f}"); }},
      {"loss forget", [](const ReportRow& r) { return cell(metric(r, "loss_forget"), "{:.3f}"); }},
      {"retain", [](const ReportRow& r) { return cell(metric(r, "loss_retain"), "{:.3f}"); }},
      {"test", [](const ReportRow& r) { return cell(metric(r, "loss_test"), "{:.3f}"); }},
      {"JS forget", [](const ReportRow& r) { return cell(metric(r, "js_forget"), "{:.5f}"); }},
      {"retain", [](const ReportRow& r) { return cell(metric(r, "js_retain"), "{:.5f}"); }},
      {"test", [](const ReportRow& r) { return cell(metric(r, "js_test"), "{:.5f}"); }},
      {"L1 forget", [](const ReportRow& r) { return cell(metric(r, "activation_l1_forget"), "{:.4f}"); }},
      {"w-dist", [](const ReportRow& r) { return cell(metric(r, "weight_distance"), "{:.3f}"); }},
      {"objective", [](const ReportRow& r) { return cell(r.objective_retain, "{:.2f}"); }},
      {"gradient", [](const ReportRow& r) { return cell(r.gradient_norm_relative, "{:.4f}"); }},
      {"lin. error",
       [](const ReportRow& r) {
         const auto it = r.linearisation_error.find("retain");
         return it == r.linearisation_error.end() ? std::string("–") : cell(it->second, "{:.3f}");
       }},
      {"seconds", [](const ReportRow& r) { return fmt::format("{:.1f}", r.seconds()); }},
      {"peak", [](const ReportRow& r) { return format_bytes(static_cast<double>(r.peak_bytes())); }},
  };
  return all;
}

// Display width of UTF-8 text, one column per code point.
size_t width(const std::string& s) {
  return static_cast<size_t>(
      std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string block_title(const ReportRow& r) {
  return fmt::format("{}, {} (P = {}), ρ = {:g}, forget {}", r.loss, r.subset, r.parameters, r.rho, r.forget);
}

template <class Block>
void for_blocks(const std::vector<ReportRow>& rows, Block&& block) {
  for (size_t from = 0; from < rows.size();) {
    size_t to = from + 1;
    while (to < rows.size() && block_title(rows[to]) == block_title(rows[from])) to++;
    block(std::vector<ReportRow>(rows.begin() + static_cast<long>(from), rows.begin() + static_cast<long>(to)));
    from = to;
  }
}

}  // namespace

double ReportRow::seconds() const {
  double sum = 0;
  for (const Phase& p : phases) sum += p.seconds;
  return sum;
}
size_t ReportRow::peak_bytes() const {
  size_t peak = 0;
  for (const Phase& p : phases) peak = std::max(peak, p.peak_bytes);
  return peak;
}

std::string Report::json() const {
  nlohmann::json j = {
      {"tool", "fastntk"}, {"version", FASTNTK_VERSION}, {"command", command}, {"config", config}, {"data", data}};
  for (const auto& [name, value] : data_numbers) put(j["data"], name, value);
  if (!results.empty())
    for (const auto& [name, value] : results) put(j["results"], name, value);
  if (!notes.empty()) j["notes"] = notes;
  j["rows"] = nlohmann::json::array();
  for (const ReportRow& row : rows) j["rows"].push_back(to_json(row));
  return j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";  // arguments may be no UTF-8
}

void Report::write_json(const std::string& path) const { write_file_atomically(path, json()); }

std::string table(const std::vector<ReportRow>& rows) {
  std::string out;
  for_blocks(rows, [&](const std::vector<ReportRow>& block) {
    std::vector<size_t> widths;
    for (const Column& c : columns()) {
      size_t w = width(c.heading);
      for (const ReportRow& r : block) w = std::max(w, width(c.text(r)));
      widths.push_back(w);
    }
    const auto line = [&](auto text) {
      for (size_t i = 0; i < columns().size(); i++) {
        const std::string s = text(columns()[i]);
        const std::string space(widths[i] - width(s), ' ');
        out += i ? "  " + space + s : s + space;
      }
      out += "\n";
    };
    out += block_title(block[0]) + "\n";
    line([](const Column& c) { return c.heading; });
    for (const ReportRow& r : block) line([&](const Column& c) { return c.text(r); });
    out += "\n";
  });
  return out;
}

std::string markdown_table(const std::vector<ReportRow>& rows) {
  std::string out;
  for_blocks(rows, [&](const std::vector<ReportRow>& block) {
    out += "**" + block_title(block[0]) + "**\n\n|";
    for (const Column& c : columns()) out += " " + c.heading + " |";
    out += "\n|";
    for (size_t i = 0; i < columns().size(); i++) out += i ? "---:|" : "---|";
    out += "\n";
    for (const ReportRow& r : block) {
      out += "|";
      for (const Column& c : columns()) out += " " + c.text(r) + " |";
      out += "\n";
    }
    out += "\n";
  });
  return out;
}

}  // namespace fastntk
