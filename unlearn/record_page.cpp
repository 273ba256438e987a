#include "unlearn/record_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "engine/error.h"
#include "engine/progress.h"
#include "unlearn/flat_json.h"
#include "unlearn/svg.h"

namespace fastntk {
namespace {

using nlohmann::json;

constexpr const char* style = R"(
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d2126; --soft: #626a73; --rule: #dedbd3;
  --accent: #0b5cad; --good: #1a7f4b; --warn: #a15c00; --bad: #b3261e; --axis: #444; --grid: #e6e3db;
  --first: #0072b2; --second: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --card: #1d2126; --ink: #e6e3dc; --soft: #9aa3ad;
  --rule: #343a41; --accent: #7fb7f0; --good: #6ccf98; --warn: #e7b05e; --bad: #f2877f; --axis: #9aa3ad;
  --grid: #2c3238; --first: #56aee5; --second: #f08a4b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans",
  "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.01em; }
h2 { font-size: 1.05rem; margin: 2.6rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--rule); }
p { margin: .5rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem; margin: 1.6rem 0; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem 1rem; }
.card .label { color: var(--soft); font-size: .82rem; }
.card .value { white-space: nowrap; font-size: 1.45rem; line-height: 1.3; font-weight: 600; }
.card .more { color: var(--soft); font-size: .82rem; }
.verdict { border-left: 4px solid var(--good); background: var(--card); padding: .7rem 1rem; margin: 1.2rem 0; }
.verdict.warn { border-color: var(--warn); } .verdict.bad { border-color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; vertical-align: top; padding: .34rem .8rem .34rem 0; border-bottom: 1px solid var(--rule); }
thead th { color: var(--soft); font-weight: 500; font-size: .82rem; }
tbody th { font-weight: 500; width: 16rem; color: var(--soft); }
td.number, th.number { text-align: right; padding-right: 0; padding-left: .8rem; white-space: nowrap; }
code { font: .88em/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .8rem 1rem; margin: .8rem 0;
  overflow-x: auto; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .6rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .85rem; padding: .2rem .4rem .3rem; }
svg text { fill: var(--ink); } svg .paper { fill: none; } svg .axis { stroke: var(--axis); }
svg .grid { stroke: var(--grid); } svg circle { r: 3px; fill-opacity: .75; }
.first { color: var(--first); font-weight: 600; } .second { color: var(--second); font-weight: 600; }
svg [stroke="#0072B2"] { stroke: var(--first); } svg [fill="#0072B2"] { fill: var(--first); }
svg [stroke="#D55E00"] { stroke: var(--second); } svg [fill="#D55E00"] { fill: var(--second); }
.bars { width: 45%; }
.bar { display: block; height: .7rem; min-width: 2px; border-radius: 2px; background: var(--accent); margin-top: .4rem; }
summary { cursor: pointer; color: var(--accent); }
@media print { main { padding: 0; max-width: none; } figure, .card, pre { break-inside: avoid; } }
)";

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

// 1.2 × 10⁻¹⁵, or 0.23 where that is short.
std::string number(const json& value) {
  if (!value.is_number()) return "–";
  if (value.is_number_integer()) return value.dump();
  const double x = value.get<double>();
  if (x == 0) return "0";
  if (std::fabs(x) >= 1e-3 && std::fabs(x) < 1e6)
    return std::fabs(x) < 1e4 ? fmt::format("{:.4g}", x) : fmt::format("{:.0f}", x);
  const std::string text = fmt::format("{:.2e}", x);
  const size_t e = text.find('e');
  return text.substr(0, e) + " × 10<sup>" + (text[e + 1] == '-' ? "−" : "") +
         std::to_string(std::abs(std::stoi(text.substr(e + 1)))) + "</sup>";
}

std::string card(const std::string& label, const std::string& value, const std::string& more) {
  return fmt::format(
      "<div class=\"card\"><div class=\"label\">{}</div><div class=\"value\">{}</div><div "
      "class=\"more\">{}</div></div>\n",
      label, value, more);
}

std::string row(const std::string& name, const std::string& value) {
  return fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", name, value);
}

std::string code(const json& value) {
  return "<code>" + escape(value.is_string() ? value.get<std::string>() : value.dump()) + "</code>";
}

std::string section(const std::string& title, const std::string& body) {
  return "<section>\n<h2>" + title + "</h2>\n" + body + "</section>\n";
}

std::string rows(const std::string& body) { return "<table><tbody>\n" + body + "</tbody></table>\n"; }

std::string figure(const Plot& plot, const std::string& caption) {
  return "<figure>" + svg_panel(plot) + "<figcaption>" + caption + "</figcaption></figure>\n";
}

std::string plots_of(const json& probe) {
  const auto predicted = probe.at("predicted_change").get<std::vector<double>>(),
             actual = probe.at("actual_change").get<std::vector<double>>();
  const auto labels = integers(probe.at("labels"));
  require(predicted.size() == actual.size() && predicted.size() == labels.size(),
          "the arrays of the probe differ in length");
  double low = INFINITY, high = 0;
  for (const auto& values : {predicted, actual})
    for (const double v : values)
      if (v > 0) low = std::min(low, v), high = std::max(high, v);
  if (high == 0) return "";
  Plot agreement{.title = "",
                 .x = {"predicted by the linear model, ‖J(θ − θ*)‖", true},
                 .y = {"of the network, ‖f(θ) − f(θ*)‖", true}};
  // Of these colours speak the captions: a legend would lie on the points.
  agreement.series = {{.x = {low, high}, .y = {low, high}},
                      {.x = predicted, .y = actual, .line = false, .markers = true}};
  std::map<int64_t, std::array<double, 3>> by_class;
  for (size_t i = 0; i < labels.size(); i++) {
    auto& sums = by_class[labels[i]];
    sums[0] += predicted[i], sums[1] += actual[i], sums[2]++;
  }
  Plot classes{.title = "", .x = {"class"}, .y = {"mean change of the logits"}};
  classes.series = {{.line = false, .markers = true}, {.line = false, .markers = true}};
  for (const auto& [label, sums] : by_class)
    for (size_t k = 0; k < 2; k++) {
      classes.series[k].x.push_back(static_cast<double>(label));
      classes.series[k].y.push_back(sums[k] / sums[2]);
    }
  return "<div class=\"plots\">\n" +
         figure(
             agreement,
             "Change of the logits since θ*, one <span class=\"second\">point</span> for each sample of the probe. On "
             "the <span class=\"first\">line</span> the linear model is right; far from it the step is not to be "
             "trusted.") +
         figure(classes,
                "The mean by class, as <span class=\"first\">predicted</span> and <span class=\"second\">of the "
                "network</span>.") +
         "</div>\n";
}

std::string phases_of(const json& phases) {
  double longest = 0;
  for (const json& p : phases) longest = std::max(longest, p.at("seconds").get<double>());
  std::string body;
  for (const json& p : phases) {
    const double seconds = p.at("seconds").get<double>();
    body += fmt::format(
        "<tr><th scope=\"row\">{}</th><td class=\"bars\"><span class=\"bar\" style=\"width:{:.1f}%\"></span></td><td "
        "class=\"number\">{:.3f} s</td><td class=\"number\">{}</td></tr>\n",
        escape(p.at("name").get<std::string>()), longest > 0 ? 100 * seconds / longest : 0, seconds,
        format_bytes(p.at("peak_bytes").get<double>()));
  }
  return "<table><thead><tr><th>phase</th><th></th><th class=\"number\">time</th><th class=\"number\">peak "
         "memory</th></tr></thead><tbody>\n" +
         body + "</tbody></table>\n";
}

std::string affected_of(const json& samples) {
  std::string body;
  for (const json& s : samples)
    body += fmt::format("<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td></tr>\n", number(s.at("id")),
                        number(s.at("label")), number(s.at("predicted_change")));
  return "<table><thead><tr><th>id</th><th>class</th><th class=\"number\">predicted change of its "
         "logits</th></tr></thead><tbody>\n" +
         body + "</tbody></table>\n";
}

std::string metrics_of(const json& metrics) {
  const json &before = metrics.at("before"), &after = metrics.at("after");
  std::string body;
  for (const auto& [key, name] : {std::pair{"forget", "forgotten"}, {"retain", "remaining"}, {"test", "test"}}) {
    const auto cell = [&](const json& values, const char* what) {
      return "<td class=\"number\">" + number(values.at(std::string(what) + key)) + "</td>";
    };
    body += fmt::format("<tr><th scope=\"row\">{}, {:.0f} samples</th>", name,
                        before.at(std::string("n_") + key).get<double>()) +
            cell(before, "acc_") + cell(after, "acc_") + cell(before, "loss_") + cell(after, "loss_") +
            "<td class=\"number\">" + number(metrics.at("linearisation_error").at(key)) + "</td></tr>\n";
  }
  return "<table><thead><tr><th></th><th class=\"number\">accuracy before</th><th class=\"number\">after</th>"
         "<th class=\"number\">cross-entropy before</th><th class=\"number\">after</th>"
         "<th class=\"number\">linearisation error</th></tr></thead><tbody>\n" +
         body + "</tbody></table>\n";
}

// As it can be given to a shell again.
std::string shell_word(const std::string& word) {
  const bool plain = !word.empty() && word.find_first_not_of(
                                          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                          "_-./:,=+@%") == std::string::npos;
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

std::string page(const json& record) {
  const json &r = record.at("result"), &m = record.at("measured");
  const auto entry = integer(r.at("entry"));
  const auto forgotten = r.at("ids").size();
  double seconds = 0;
  for (const json& p : m.at("phases")) seconds += p.at("seconds").get<double>();
  const auto arrived = r.contains("arrived") ? r.at("arrived").size() : 0;
  const std::string request = r.at("request").get<std::string>();
  const auto samples = [](size_t count) { return fmt::format("{} sample{}", count, count == 1 ? "" : "s"); };
  std::string title = fmt::format("Request {}: {} forgotten", entry, samples(forgotten));
  if (entry == 0) title = "A request to forget, tried";
  if (request == "add") title = fmt::format("Request {}: {} added", entry, samples(arrived));
  if (request == "restore") title = fmt::format("Request {}: back to entry {}", entry, number(r.at("restored_to")));
  if (request == "purge") title = fmt::format("Request {}: what had left is purged", entry);
  const json& error = r.at("linearisation_error");
  const std::string advice = r.at("advice").get<std::string>();
  const double e = error.is_number() ? error.get<double>() : INFINITY;
  const auto ids_of = [&](const char* name) {
    std::string ids;
    for (const int64_t id : integers(r.at(name))) ids += (ids.empty() ? "" : ", ") + std::to_string(id);
    const size_t count = r.at(name).size();
    return fmt::format("<details><summary>{} id{}</summary><code>{}</code></details>", count, count == 1 ? "" : "s",
                       ids);
  };
  std::string command;
  for (const json& word : m.at("command"))
    command += (command.empty() ? "" : " ") + shell_word(word.get<std::string>());

  std::string date = m.at("date").get<std::string>();
  if (date.size() == 20) date = date.substr(0, 10) + " " + date.substr(11, 8) + " UTC";

  std::string out = "<h1>" + title + "</h1>\n<p class=\"soft\">" + escape(date) + " · " +
                    escape(m.at("program").get<std::string>()) + "</p>\n";
  if (entry == 0) out += "<p>A dry run: this is what the request would do. Nothing was written.</p>\n";
  out +=
      "<div class=\"cards\">\n" +
      (forgotten > 0 || arrived == 0
           ? card("forgotten", std::to_string(forgotten), fmt::format("of {} samples", number(r.at("n_before"))))
           : "") +
      (arrived > 0 ? card("came", std::to_string(arrived), fmt::format("to {} samples", number(r.at("n_before"))))
                   : "") +
      card("remain", number(r.at("n_after")), fmt::format("{} classes", number(r.at("classes")))) +
      card("weights moved by", number(r.at("update_norm")), fmt::format("‖Δθ‖, P = {}", number(r.at("parameters")))) +
      card("relative residual", number(r.at("relative_residual")), "of the normal equations") +
      card("linearisation error", number(error),
           fmt::format("on {} samples of the probe", r.at("probe").at("ids").size())) +
      card("change of A", number(r.at("matrix_distance")), "at these weights, of itself") +
      card("took", fmt::format("{:.2f} s", seconds), "all phases") + "</div>\n";
  const bool fine = advice == "none needed";
  out += fmt::format("<div class=\"verdict{}\"><strong>{}</strong> {}</div>\n",
                     e >= 1  ? " bad"
                     : !fine ? " warn"
                             : "",
                     fine ? "Action:" : "Action needed:", escape(advice));
  out += section("How far the network follows the linear model", plots_of(r.at("probe")));
  if (r.contains("most_affected"))
    out += section("Samples that remain and change most", affected_of(r.at("most_affected")));
  if (record.contains("metrics")) out += section("What the model does now", metrics_of(record.at("metrics")));
  out += section("What was asked",
                 rows(row("request", code(r.at("request"))) + row("command", code(command)) +
                      row("ids that left", ids_of("ids")) + row("SHA-256 of these ids", code(r.at("ids_sha256"))) +
                      row("of these samples", code(r.at("samples_sha256"))) +
                      (r.contains("arrived") ? row("ids that came", ids_of("arrived")) +
                                                   row("SHA-256 of these ids", code(r.at("arrived_ids_sha256"))) +
                                                   row("of these samples", code(r.at("arrived_sha256")))
                                             : "")));
  out += section(
      "What was done",
      rows(
          row("rule", code(r.at("rule")) + fmt::format(": θ ← θ* + θ<sub>{0}</sub>(D<sub>r</sub>) − θ<sub>{0}</sub>(D)",
                                                       r.at("rule") == "newton-shift" ? "newton" : "lin")) +
          row("loss", code(r.at("loss"))) +
          row("tuned parameters", code(r.at("subset")) + fmt::format(", P = {}", number(r.at("parameters")))) +
          row("ridge ρ", number(r.at("rho")) + ", " + code(r.at("convention")) + " convention") +
          row("representation", escape(r.at("representation").get<std::string>())) +
          row("condition, at most about", number(r.at("condition_bound"))) +
          row("smallest eigenvalue of I − J<sub>f</sub>KJ<sub>f</sub>ᵀ", number(r.at("smallest_eigenvalue"))) +
          (r.contains("newton")
               ? row("gradient at the optimum", number(r.at("newton").at("gradient_norm")) + ", from " +
                                                    number(r.at("newton").at("start_gradient_norm")) + " at the start")
               : "") +
          row("change of logits on the probe",
              "predicted " + number(r.at("predicted_change")) + ", of the network " + number(r.at("actual_change")))));
  out += section("What it is bound to", rows(row("weights before", code(r.at("weights_before_sha256"))) +
                                             row("weights after", code(r.at("weights_after_sha256"))) +
                                             row("samples prepared", code(r.at("data_sha256"))) +
                                             row("samples that remain", code(r.at("retained_sha256"))) +
                                             row("journal before", r.at("journal_before").get<std::string>().empty()
                                                                       ? "the first entry"
                                                                       : code(r.at("journal_before")))));
  if (record.contains("signature"))
    out += section("Signature",
                   rows(row("algorithm", code(record.at("signature").at("algorithm"))) +
                        row("SHA-256 of the public key's 32 bytes", code(record.at("signature").at("key_sha256"))) +
                        row("of the result", code(record.at("signature").at("value")))));
  out += section("Time and memory",
                 phases_of(m.at("phases")) +
                     fmt::format("<p class=\"soft\">{} threads; the process had at most {} resident.</p>\n",
                                 number(m.at("threads")), format_bytes(m.at("peak_resident_bytes").get<double>())));
  if (entry != 0)
    out +=
        section("How to check it",
                fmt::format("<p>From the samples that remain alone, computed anew:</p>\n<pre><code>fastntk verify "
                            "record-{0:06}.json --state STATE</code></pre>\n"
                            "<p>With the forgotten samples as well, bit for bit:</p>\n<pre><code>fastntk verify "
                            "record-{0:06}.json --state STATE --replay</code></pre>\n",
                            entry) +
                    (record.contains("signature")
                         ? fmt::format("<p>Whose signature it has:</p>\n<pre><code>fastntk verify record-{0:06}.json "
                                       "--public-key KEY.pub.pem</code></pre>\n",
                                       entry)
                         : ""));
  out += section("What this says, and what it does not",
                 "<p>Removed is the influence of the forgotten samples through the tuned parameters, in the model that "
                 "is linear in them. How far the "
                 "network itself differs from its linear model is the linearisation error above. Frozen weights, and "
                 "the data that they were pre-trained "
                 "on, are outside of the claim. This is no privacy guarantee.</p>\n");
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\">\n"
         "<title>" +
         title + "</title>\n<style>" + style + "</style>\n</head>\n<body>\n<main>\n" + out +
         "</main>\n</body>\n</html>\n";
}

}  // namespace

std::string record_page(const std::string& record, const std::string& source) {
  try {
    return page(parse_flat(record, source));
  } catch (const json::exception&) {
    fail("{} is not the record of a request", source);
  }
}

}  // namespace fastntk
