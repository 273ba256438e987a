// Numbers in texts: options, rules, names of files, metadata.
#pragma once
#include <charconv>
#include <optional>
#include <string_view>

namespace fastntk {

/// The number that all of the text is, in decimal and without blanks or a plus sign; nothing where it is none or does
/// not fit.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace fastntk
