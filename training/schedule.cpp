#include "training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "engine/error.h"
#include "engine/parse_number.h"

namespace fastntk {
namespace {

struct Parsed {
  std::string kind;
  std::vector<double> numbers;
};

Parsed split(const std::string& text) {
  Parsed out;
  size_t at = 0;
  for (bool first = true; at <= text.size(); first = false) {
    const size_t end = std::min(text.find(':', at), text.size());
    const std::string part = text.substr(at, end - at);
    at = end + 1;
    if (first) {
      out.kind = part;
      continue;
    }
    const auto value = parse_number<double>(part);
    require_usage(value && std::isfinite(*value), "schedule '{}': '{}' is not a number", text, part);
    out.numbers.push_back(*value);
  }
  return out;
}

// From a at u = 0 to b at u = 1.
double cosine(double a, double b, double u) { return b + (a - b) * 0.5 * (1 + std::cos(std::numbers::pi * u)); }

}  // namespace

Schedule Schedule::parse(const std::string& text) {
  const Parsed p = split(text);
  const auto& n = p.numbers;
  const bool known = (p.kind == "constant" && n.empty()) || (p.kind == "one-cycle" && n.empty()) ||
                     (p.kind == "step" && n.size() == 2 && n[0] >= 1 && n[1] > 0) ||
                     (p.kind == "power" && n.size() == 2 && n[0] >= 0 && n[1] >= 0 && n[1] < 1) ||
                     (p.kind == "cosine" && (n.empty() || (n.size() == 1 && n[0] >= 0 && n[0] < 1)));
  require_usage(
      known,
      "a schedule is constant, step:PARTS:FACTOR, cosine, cosine:WARMUP, power:EXPONENT:WARMUP or one-cycle, got '{}'",
      text);
  return {text};
}

double Schedule::rate(double peak, int64_t step, int64_t steps) const {
  const Parsed p = split(text);
  const double t = static_cast<double>(step) / static_cast<double>(steps);
  // Multiplied first: 0.29 · 100 would round down to 28 whole parts.
  if (p.kind == "step")
    return peak *
           std::pow(p.numbers[1], std::floor(p.numbers[0] * static_cast<double>(step) / static_cast<double>(steps)));
  if (p.kind == "cosine" || p.kind == "power") {
    const double warmup = p.numbers.empty() ? 0 : p.numbers.back();
    if (t < warmup)
      return peak * std::min(1.0, (static_cast<double>(step) + 1) / (warmup * static_cast<double>(steps)));
    const double u = (t - warmup) / (1 - warmup);
    return p.kind == "cosine" ? cosine(peak, 0, u) : peak * std::pow(1 - u, p.numbers[0]);
  }
  if (p.kind == "one-cycle")
    return t < 0.3 ? cosine(peak / 25, peak, t / 0.3) : cosine(peak, peak / 250000, (t - 0.3) / 0.7);
  return peak;
}

}  // namespace fastntk
