// CSV texts by RFC 4180, and what is none.
#include <catch2/catch.hpp>

#include "datasets/csv.h"
#include "datasets/refusal.h"

using namespace fastntk;

namespace {

std::vector<std::vector<std::string>> fields(const std::string& text) {
  std::vector<std::vector<std::string>> result;
  for (const CsvRecord& record : parse_csv(text, "x")) result.push_back(record.fields);
  return result;
}

std::string error(const std::string& text) {
  return refusal("list", [&](const std::string& path) { parse_csv(text, path); });
}

using Table = std::vector<std::vector<std::string>>;

}  // namespace

TEST_CASE("CSV records and fields", "[csv]") {
  CHECK(fields("").empty());
  CHECK(fields("a,b\nc,d\n") == Table{{"a", "b"}, {"c", "d"}});
  CHECK(fields("a,b\r\nc,d") == Table{{"a", "b"}, {"c", "d"}});
  CHECK(fields("\xef\xbb\xbf"
               "a,b\n\n1,2\r\n\r\n") == Table{{"a", "b"}, {"1", "2"}});
  CHECK(fields("a,\n,b\n") == Table{{"a", ""}, {"", "b"}});
  CHECK(fields("\"a,1\",\"say \"\"x\"\"\"\n\"two\nlines\",\"\"\n") == Table{{"a,1", "say \"x\""}, {"two\nlines", ""}});
  CHECK(fields(" a , b\n") == Table{{" a ", " b"}});
  CHECK(fields("a\rb\n") == Table{{"a\rb"}});
  const auto records = parse_csv("a\n\n\"b\n\nc\"\nd\n", "x");
  CHECK(records[1].line == 3);
  CHECK(records[2].line == 6);
}

TEST_CASE("malformed CSV is refused with one sentence", "[csv]") {
  CHECK(error("a,b\nc\n") == "line 2 has 1 fields, the first record has 2");
  CHECK(error("a,b\"c\n") == "line 1 has a quote inside a field without quotes");
  CHECK(error("a\n\"b\"c\n") == "line 2 has text after a closing quote");
  CHECK(error("a\n\"b\n\nc") == "a quote of line 2 is never closed");
  CHECK(error("\"") == "a quote of line 1 is never closed");
  CHECK(error(std::string("a\nb\0c\n", 6)) == "line 2 has a NUL byte");
  CHECK(error(std::string("\"a\0\"", 4)) == "line 1 has a NUL byte");
}
