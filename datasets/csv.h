// Comma-separated values as RFC 4180 has them.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace fastntk {

/// A record and the line of the file that it begins on, from 1.
struct CsvRecord {
  std::vector<std::string> fields;
  int64_t line = 1;
};

/// The records of a text. Fields are separated by commas, records by \n or \r\n. A field in double quotes may hold
/// commas, line breaks and, doubled, quotes. A byte-order mark at the start and empty lines are passed over. A quote
/// inside a field without quotes, text after a closing quote, a quote that is never closed and NUL bytes are Errors
/// that name `path` and the line; so is a record with another number of fields than the first.
std::vector<CsvRecord> parse_csv(std::string_view text, const std::string& path);

}  // namespace fastntk
