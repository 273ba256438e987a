#include "engine/pickle.h"

#include <array>
#include <catch2/catch.hpp>

#include "engine/error.h"
#include "torch_writer.h"

using namespace fastntk;
using namespace torch_writer;
using Kind = PickleValue::Kind;

namespace {

constexpr std::array<std::string_view, 1> known{"known.function"};

Pickle read(const std::string& bytes) { return unpickle(std::as_bytes(std::span(bytes)), known, "the file"); }

// The message of the refusal, less the source it must begin with.
std::string refusal(const std::string& bytes) {
  try {
    read(bytes);
  } catch (const Error& e) {
    const std::string what = e.what();
    CHECK(what.starts_with("the file: "));
    CHECK(what.find('\n') == std::string::npos);
    return what.substr(10);
  }
  return "no error";
}

// As Python would print it.
std::string printed(const Pickle& p, const PickleValue& v) {
  const auto items = [&] {
    std::string text;
    for (const PickleRef i : v.items) text += (text.empty() ? "" : " ") + printed(p, p[i]);
    return text;
  };
  switch (v.kind) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return v.integer ? "True" : "False";
    case Kind::integer:
      return std::to_string(v.integer);
    case Kind::real:
      return fmt::format("{}", v.real);
    case Kind::text:
      return "'" + v.text + "'";
    case Kind::bytes:
      return "b'" + v.text + "'";
    case Kind::list:
      return "[" + items() + "]";
    case Kind::tuple:
      return "(" + items() + ")";
    case Kind::dict:
      return "{" + items() + "}";
    case Kind::global:
      return v.text;
    default:
      return describe(p, v) + items();
  }
}
std::string printed(const std::string& value) {
  const Pickle p = read(pickle(value));
  return printed(p, p.root());
}

}  // namespace

TEST_CASE("data of every kind come out of a pickle", "[pickle]") {
  CHECK(printed("N") == "None");
  CHECK(printed("\x88") == "True");
  CHECK(printed("\x89") == "False");
  CHECK(printed("K\xff") == "255");
  CHECK(printed(std::string("M\x00\x01", 3)) == "256");
  CHECK(printed("J\xfe\xff\xff\xff") == "-2");
  CHECK(printed(std::string("\x8a\x00", 2)) == "0");
  CHECK(printed("\x8a\x01\x80") == "-128");
  CHECK(printed(integer(INT64_MIN)) == "-9223372036854775808");
  CHECK(printed(std::string("\x8b\x02\0\0\0\xff\x7f", 7)) == "32767");
  CHECK(printed(std::string("G\x3f\xb9\x99\x99\x99\x99\x99\x9a", 9)) == "0.1");
  CHECK(printed(text("größe")) == "'größe'");
  CHECK(printed("\x8c\x02"
                "ab") == "'ab'");
  CHECK(printed("U\x02"
                "ab") == "'ab'");
  CHECK(printed("C\x02"
                "ab") == "b'ab'");
  CHECK(printed("](K\1K\2e") == "[1 2]");
  CHECK(printed("]K\1a") == "[1]");
  CHECK(printed("(K\1K\2l") == "[1 2]");
  CHECK(printed(")") == "()");
  CHECK(printed("K\1\x85") == "(1)");
  CHECK(printed("K\1K\2\x86") == "(1 2)");
  CHECK(printed("K\1K\2K\3\x87") == "(1 2 3)");
  CHECK(printed("(K\1K\2K\3K\4t") == "(1 2 3 4)");
  CHECK(printed("}K\1K\2s") == "{1 2}");
  CHECK(printed("(K\1K\2d") == "{1 2}");
  CHECK(printed(dictionary({{"a", "N"}, {"b", "]"}})) == "{'a' None 'b' []}");
  CHECK(printed(state_dict({{"a", "K\1"}})) == "{'a' 1}");
  CHECK(printed(global("collections", "OrderedDict") + "](K\1K\2\x86"
                                                       "e\x85R") == "{1 2}");
  CHECK(printed(global("known", "function")) == "known.function");
  CHECK(printed(text("known") + text("function") + "\x93") == "known.function");
  CHECK(printed(global("known", "function") + ")R") == "known.function(…)known.function ()");
  CHECK(printed("K\1Q") == "a persistent object1");
  CHECK(printed("K\1K\2"
                "0") == "1");
  CHECK(printed("K\1(K\2"
                "1") == "1");
  CHECK(printed("K\1"
                "2\x86") == "(1 1)");
  // Stored and recalled values are shared, and a list may hold itself.
  CHECK(printed("]q\1h\1\x86") == "([] [])");
  CHECK(printed(std::string("]r\1\2\0\0j\1\2\0\0\x86", 12)) == "([] [])");
  CHECK(printed(std::string("]\x94h\0\x86", 5)) == "([] [])");
  const Pickle self = read(pickle("]q\1h\1a"));
  CHECK(&self[self.root().items[0]] == &self.root());
}

TEST_CASE("what a pickle would have Python call is refused by name", "[pickle]") {
  const std::string only = "; only tensors, dictionaries, lists, numbers and strings are read, and no code is run";
  CHECK(refusal(pickle(global("os", "system") + text("ls") + "\x85R")) ==
        "refers to the Python object \"os.system\"" + only);
  CHECK(refusal(pickle(text("builtins") + text("eval") + "\x93")) ==
        "refers to the Python object \"builtins.eval\"" + only);
  CHECK(refusal(pickle(global("known", "function.evil"))) ==
        "refers to the Python object \"known.function.evil\"" + only);
  CHECK(refusal(pickle(global("a\x1b[2J", "b"))) == "refers to the Python object \"a\\u001b[2J.b\"" + only);
  CHECK(refusal(pickle(")\x81")) == "its pickle has the opcode 0x81 at byte 3, which makes no plain data");
  CHECK(refusal(pickle("cknown\nfunction\n)R}b")) ==
        "its pickle sets attributes of known.function(…), which is not done here");
}

TEST_CASE("malformed pickles are refused with one sentence", "[pickle]") {
  CHECK(refusal("") == "its pickle ends at byte 0 where 1 more were expected (truncated?)");
  CHECK(refusal("(dp0\n.") == "not a pickle: it does not begin with a protocol number");
  CHECK(refusal("\x80\x06N.") == "its pickle has protocol 6; 2 to 5 can be read");
  CHECK(refusal("\x80\x02N") == "its pickle ends at byte 3 where 1 more were expected (truncated?)");
  CHECK(refusal("\x80\x02N.N") == "1 bytes follow the end of its pickle");
  CHECK(refusal(pickle("")) == "its pickle is malformed: a value is missing at byte 2");
  CHECK(refusal(pickle("NN")) == "its pickle is malformed: 1 values are left over");
  CHECK(refusal(pickle("(")) == "its pickle is malformed: a value is missing at byte 3");
  CHECK(refusal(pickle("Nt")) == "its pickle is malformed: a mark is missing at byte 3");
  CHECK(refusal(pickle("}(Nu")) == "its pickle is malformed: a key without a value at byte 5");
  CHECK(refusal(pickle(")Na")) == "its pickle is malformed: entries are added to a tuple at byte 4");
  CHECK(refusal(pickle("h\1")) == "its pickle is malformed: byte 3 refers to what was not stored");
  CHECK(refusal(pickle("NNR")) == "its pickle is malformed: None is called with None at byte 4");
  CHECK(refusal(pickle("\x8a\x09"
                       "123456789")) == "its pickle has an integer of 9 bytes; 8 can be read");
  CHECK(refusal("\x80\x02X\xff\xff\xff\xff.") ==
        "its pickle ends at byte 8 where 4294967294 more were expected (truncated?)");
  CHECK(refusal(pickle("\x8e\xff\xff\xff\xff\xff\xff\xff\xff")).ends_with("more were expected (truncated?)"));
  CHECK(refusal("\x80\x02"
                "cos") == "its pickle ends within a name (truncated?)");
  CHECK(refusal(pickle(std::string(4'000'001, 'N'))) == "its pickle has more than 4000000 values");
  // A list of pairs that is copied into one OrderedDict after the other.
  std::string bomb = global("collections", "OrderedDict") + "q\1](";
  for (int i = 0; i < 2000; i++) bomb += "NN\x86";
  bomb += "e\x85q\2";
  for (int i = 0; i < 2000; i++) bomb += "h\1h\2R0";
  CHECK(refusal(pickle(bomb)) == "its pickle has more than 4000000 values");

  const std::string whole = pickle(state_dict({{"a", integer(1)}, {"b", tuple({text("c"), "N"})}}));
  REQUIRE(refusal(whole) == "no error");
  for (size_t size = 0; size < whole.size(); size++) CHECK(refusal(whole.substr(0, size)) != "no error");
  for (size_t at = 0; at < whole.size(); at++)
    for (const int value :
         std::initializer_list<int>{0, '(', '.', 'R', 'b', 'c', 'h', 'q', 't', 'u', '}', 0x8a, 0xff}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(value);
      refusal(changed);  // an error in one line or none, but nothing worse
    }
}
