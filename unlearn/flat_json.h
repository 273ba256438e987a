// JSON from files that somebody else may have written.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "engine/error.h"

namespace fastntk {

/// The value, if it is no deeper than anything that we write: what is deeper would exhaust the stack when it is written
/// again. A json::exception where the text is not JSON, an Error where it is too deep.
inline nlohmann::json parse_flat(std::string_view text, std::string_view source) {
  constexpr int deepest = 16;
  bool deep = false;
  nlohmann::json value = nlohmann::json::parse(
      text,
      [&deep](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) { return !(deep |= depth > deepest); });
  require(!deep, "{} is nested more than {} deep", source, deepest);
  return value;
}

/// The integer that a value is; a json::exception where it is none. (`get` converts any number, also one that no
/// integer can hold.)
inline int64_t integer(const nlohmann::json& value) { return value.get_ref<const nlohmann::json::number_integer_t&>(); }
inline std::vector<int64_t> integers(const nlohmann::json& values) {
  std::vector<int64_t> out;
  for (const nlohmann::json& value : values.get_ref<const nlohmann::json::array_t&>()) out.push_back(integer(value));
  return out;
}

}  // namespace fastntk
