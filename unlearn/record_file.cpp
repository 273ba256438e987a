#include "unlearn/record_file.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/sha256.h"
#include "unlearn/flat_json.h"

namespace fastntk {
namespace {

using nlohmann::json;

[[noreturn]] void not_a_record(const std::string& source) { fail("{} is not the record of a request", source); }

bool agree(const json& a, const json& b, double tolerance) {
  if (tolerance > 0 && a.is_number() && b.is_number() && (a.is_number_float() || b.is_number_float())) {
    const double x = a.get<double>(), y = b.get<double>();
    return std::fabs(x - y) <= tolerance * std::max(std::fabs(x), std::fabs(y));
  }
  // 1 and 1.0 are equal to the library, and different bytes.
  return a.type() == b.type() && a == b;
}

std::string text_of(const json& value) {
  std::string text = value.dump();
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

std::optional<FieldDifference> differ(const std::string& name, const json& got, const json& expected,
                                      double tolerance) {
  if (got.type() == expected.type() && got.is_structured() && got.size() == expected.size()) {
    if (got.is_object()) {
      for (const auto& [key, value] : expected.items()) {
        const std::string inner = fmt::format("{}.{}", name, key);
        if (!got.contains(key)) return FieldDifference{inner, "missing", text_of(value)};
        if (auto found = differ(inner, got[key], value, tolerance)) return found;
      }
      return {};
    }
    for (size_t i = 0; i < got.size(); i++)
      if (auto found = differ(fmt::format("{}[{}]", name, i), got[i], expected[i], tolerance)) return found;
    return {};
  }
  if (agree(got, expected, tolerance)) return {};
  return FieldDifference{name, text_of(got), text_of(expected)};
}

}  // namespace

RecordFile parse_record(const std::string& text, const std::string& source) {
  RecordFile r{.source = source, .text = text};
  try {
    json record = parse_flat(text, source);
    const json& result = record.at("result");
    r.entry = integer(result.at("entry"));
    r.result = result.dump();
    r.made_by = record.at("measured").at("program").get<std::string>();
    if (record.contains("signature")) {
      const json& s = record["signature"];
      r.signature = {.key_sha256 = s.at("key_sha256").get<std::string>(), .value = s.at("value").get<std::string>()};
      require(s.at("algorithm") == "Ed25519", "{} is signed by another algorithm than Ed25519", source);
    }
    const std::string hash = record.at("sha256").get<std::string>();
    // Two texts can be one number, so the text is compared, too.
    const bool as_written = record.dump(1) + "\n" == text;
    record.erase("sha256");
    r.intact = as_written && sha256(record.dump()) == hash;
  } catch (const json::exception&) {
    not_a_record(source);
  }
  require(r.entry >= 1, "{} is the record of entry {}; the entries of a journal begin with 1", source, r.entry);
  return r;
}

RecordFile read_record(const std::string& path) { return parse_record(read_file(path), path); }

std::string with_metrics(const RecordFile& record, const RecordMetrics& metrics) {
  const auto object = [](const std::map<std::string, double>& values) {
    json out = json::object();
    for (const auto& [name, value] : values) out[name] = std::isfinite(value) ? json(value) : json();
    return out;
  };
  json whole = parse_flat(record.text, record.source);
  whole.erase("sha256");
  whole["metrics"] = {{"before", object(metrics.before)},
                      {"after", object(metrics.after)},
                      {"linearisation_error", object(metrics.linearisation_error)}};
  whole["sha256"] = sha256(whole.dump());
  return whole.dump(1) + "\n";
}

void check_signature(const RecordFile& record, const SignatureKey& key) {
  require(record.signature.has_value(), "{} is not signed", record.source);
  require(record.signature->key_sha256 == key.fingerprint(), "{} is signed by the key {}, the one given is {}",
          record.source, record.signature->key_sha256, key.fingerprint());
  require(key.fits(record.result, record.signature->value),
          "{}: the signature is not that of its result, which was changed after it was signed", record.source);
}

std::optional<FieldDifference> first_difference(const std::string& got, const std::string& expected, double tolerance,
                                                const std::vector<std::string>& unless) {
  const json a = json::parse(got), b = json::parse(expected);
  std::vector<std::string> names;
  for (const json* const object : {&a, &b})
    for (const auto& [name, value] : object->items()) names.push_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) {
    if (std::find(unless.begin(), unless.end(), name) != unless.end()) continue;
    if (!a.contains(name)) return FieldDifference{name, "missing", text_of(b[name])};
    if (!b.contains(name)) return FieldDifference{name, text_of(a[name]), "missing"};
    if (auto found = differ(name, a[name], b[name], tolerance)) return found;
  }
  return {};
}

}  // namespace fastntk
