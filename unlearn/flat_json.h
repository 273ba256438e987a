// JSON from files that somebody else may have written.
#pragma once
#include <nlohmann/json.hpp>
#include <string_view>

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

}  // namespace fastntk
