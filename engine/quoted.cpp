#include "engine/quoted.h"

#include <nlohmann/json.hpp>

namespace fastntk {

std::string in_quotes(std::string_view name) {
  constexpr size_t enough = 100;
  const std::string start(name.substr(0, enough));
  return nlohmann::json(start).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) +
         (name.size() > enough ? "…" : "");
}

}  // namespace fastntk
