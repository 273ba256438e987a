// Records: checked against journal, samples and a replay; as pages; refused where they are not records.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "engine/file.h"
#include "engine/sha256.h"
#include "temporary_folder.h"
#include "unlearn/metrics.h"
#include "unlearn/record_page.h"
#include "unlearn/small_state.h"
#include "unlearn/state_files.h"
#include "unlearn/verify_record.h"

using namespace fastntk;
using namespace fastntk::test;
using nlohmann::json;

namespace {

// With a hash of its own that fits, as one who tampers would write it.
std::string sealed(json record) {
  record.erase("sha256");
  record["sha256"] = sha256(record.dump());
  return record.dump(1) + "\n";
}

// Another value of the same kind.
json changed(const json& value) {
  if (value.is_number_integer()) return value.get<int64_t>() + 1;
  if (value.is_number()) return value.get<double>() * 1.001 + 1e-3;
  if (value.is_string()) return value.get<std::string>() + "0";
  json out = value;
  if (value.is_object())
    out.begin().value() = changed(out.begin().value());
  else
    out.push_back(1);
  return out;
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a record is checked from what remains, and every field of it by a replay", "[record]") {
  const SmallState s;
  const TemporaryFolder folder;
  const std::string path = folder / "state";
  {
    Prepared state = s.prepare(path, 1000);
    state.forget({3, 7}, {.command = {"fastntk", "\xff"}});
  }
  const RequestRecord made = Prepared::open(path, Journal::Access::write).forget({0, 12});
  const Prepared state = Prepared::open(path, Journal::Access::read);
  const std::string text = read_file(state.record_path(2));
  const RecordFile record = parse_record(text, "R");
  CHECK(record.intact);
  CHECK(record.entry == 2);
  CHECK(record.result == made.result());
  CHECK(parse_record(read_file(state.record_path(1)), "R").intact);

  // A byte changed anywhere is noticed, also where it leaves a number the same.
  size_t unnoticed = 0;
  for (size_t i = 0; i < text.size(); i++) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    try {
      if (parse_record(damaged, "R").intact) unnoticed++;
    } catch (const Error&) {
      continue;
    }
  }
  CHECK(unnoticed == 0);

  // The samples that were forgotten are not needed, and neither are the rows of those that remain.
  const Samples retained = select(s.samples, state.present_after(2));
  const Verification v = verify_record(record, state, retained);
  CHECK(v.retained == 16);
  CHECK(v.difference <= v.bound);
  CHECK(v.bound == std::max(1e-8, v.condition * 1e-14));
  CHECK_THROWS_WITH(replay_record(record, state, retained, folder / "lacking"), Catch::Contains("needed"));
  replay_record(record, state, s.samples, folder / "again");
  replay_record(parse_record(read_file(state.record_path(1)), "R"), state, s.samples, folder / "first");

  // What is measured says what was asked and where; it is covered by the record's own hash.
  const json whole = json::parse(text);
  CHECK(whole["measured"]["phases"].size() == 3);  // read, solve, probe
  json other = whole;
  other["measured"]["threads"] = 77;
  CHECK_THROWS_WITH(verify_record(parse_record(other.dump(), "R"), state, retained), Catch::Contains("damaged"));

  // Every field of the result, changed by one who makes the hash fit: named at once by the state's own copy.
  int replayed = 0;
  for (const auto& [name, value] : whole["result"].items()) {
    if (name == "entry") continue;
    INFO(name);
    json forged = whole;
    forged["result"][name] = changed(value);
    const RecordFile false_record = parse_record(sealed(forged), "R");
    CHECK(false_record.intact);
    CHECK_THAT(message([&] { verify_record(false_record, state, retained); }),
               Catch::Contains("the field " + name) && Catch::Contains("bound to"));
    // Where that copy was changed, too, by what the samples that remain give; what does not follow from them by the
    // hash in the journal.
    write_file_atomically(state.record_path(2), sealed(forged));
    const std::string why = message([&] { verify_record(false_record, state, retained); });
    if (why.find("SHA-256 of its result differs") != std::string::npos)
      replayed++;
    else
      CHECK_THAT(why, Catch::Contains("the field " + name) && Catch::Contains("computed from the samples that remain"));
    write_file_atomically(state.record_path(2), text);
  }
  CHECK(replayed == 4);
  json forged = whole;
  forged["result"]["condition_bound"] = changed(whole["result"]["condition_bound"]);
  CHECK_THAT(
      message([&] { replay_record(parse_record(sealed(forged), "R"), state, s.samples, folder / "forged"); }),
      Catch::Contains("the field condition_bound") && Catch::Contains("once more") && Catch::Contains("kernels"));
  forged = whole;
  forged["result"]["entry"] = 3;
  CHECK_THROWS_WITH(verify_record(parse_record(sealed(forged), "R"), state, retained), Catch::Contains("field entry"));
}

TEST_CASE("a record of a request with cross-entropy is checked and replayed", "[record]") {
  const SmallState s;
  const TemporaryFolder folder;
  Prepared state = s.prepare(folder / "state", 1000, "ce");
  state.forget({3, 7});
  state.compact();
  state.forget({0});
  const RecordFile record = read_record(state.record_path(3));
  CHECK_THAT(record.result, Catch::Contains("\"rule\":\"newton-shift\"") && Catch::Contains("\"newton\":{"));
  const Verification v = verify_record(record, state, select(s.samples, state.present_after(3)));
  CHECK(v.difference <= v.bound);
  replay_record(record, state, s.samples, folder / "again");
}

TEST_CASE("the first field on which two results differ", "[record]") {
  const auto difference = [](const char* a, const char* b, double tolerance = 0) {
    const auto d = first_difference(a, b, tolerance);
    return d ? d->field + ": " + d->got + " / " + d->expected : "none";
  };
  CHECK(difference(R"({"a":1,"b":"x"})", R"({"b":"x","a":1})") == "none");
  CHECK(difference(R"({"a":1,"b":2})", R"({"a":1,"b":3})") == "b: 2 / 3");
  CHECK(difference(R"({"a":1})", R"({"a":1.0})") == "a: 1 / 1.0");
  CHECK(difference(R"({"a":1.0})", R"({"a":1.0000001})", 1e-6) == "none");
  CHECK(difference(R"({"a":1.0})", R"({"a":1.00001})", 1e-6) == "a: 1.0 / 1.00001");
  CHECK(difference(R"({"a":1.0})", R"({"a":1.0000001})") == "a: 1.0 / 1.0000001");
  CHECK(difference(R"({"b":1})", R"({"a":1,"b":2})") == "a: missing / 1");
  CHECK(difference(R"({"a":1,"b":2})", R"({"b":2})") == "a: 1 / missing");
  CHECK(difference(R"({"p":{"x":[1,2]}})", R"({"p":{"x":[1,3]}})") == "p.x[1]: 2 / 3");
  CHECK(difference(R"({"p":{"x":[1,2]}})", R"({"p":{"x":[1]}})") == "p.x: [1,2] / [1]");
  CHECK(difference(R"({"p":{"x":1}})", R"({"p":{"y":1}})") == "p.y: missing / 1");
  CHECK(!first_difference(R"({"a":1,"b":2})", R"({"a":3,"b":2})", 0, {"a"}));
}

TEST_CASE("what is not a record is refused in one line", "[record]") {
  const auto refused = [](const std::string& text) {
    CHECK_THROWS_WITH(parse_record(text, "R"), Catch::Contains("R is") && !Catch::Contains("\n"));
  };
  refused("");
  refused("{}");
  refused("[]");
  refused("{\"result\": 3}");
  refused(R"({"result": {"entry": 0}, "measured": {"program": ""}, "sha256": ""})");
  refused(R"({"result": {"entry": "1"}, "measured": {"program": ""}, "sha256": ""})");
  refused(R"({"result": {"entry": 1}, "measured": {"program": ""}})");
  // A number that no integer can hold.
  refused(R"({"result": {"entry": 1e80}, "measured": {"program": ""}, "sha256": ""})");
  refused(std::string(100000, '['));
  refused(R"({"result": {"entry": 1, "x": )" + std::string(100000, '[') + std::string(100000, ']') + "}}");
  CHECK(parse_record(R"({"result": {"entry": 1}, "measured": {"program": "p"}, "sha256": ""})", "R").made_by == "p");
}

TEST_CASE("what is not a manifest is refused in one line", "[record]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& text) {
    CHECK_THROWS_WITH(read_manifest(folder.write("manifest.json", text), 3),
                      Catch::Contains("is damaged") && !Catch::Contains("\n"));
  };
  refused("");
  refused("{}");
  refused(R"({"format_version": 3})");
  refused(R"({"format_version": 3.0})");
  refused(R"({"format_version": 1e80, "sha256": ""})");
  refused(R"({"format_version": 3, "sha256": ""})");
}

TEST_CASE("a record as a page", "[record]") {
  const SmallState s;
  const TemporaryFolder folder;
  Prepared state = s.prepare(folder / "state", 1000);
  const RequestRecord dry = state.forget({3}, {.dry_run = true, .most_affected = 5});
  REQUIRE(dry.most_affected.size() == 5);
  // Those that change most, found by hand.
  const Jacobian j = jacobian(*s.model, s.subset, s.samples.inputs);
  const LinearisedSet set{j.rows, j.logits, s.samples.labels};
  const Tensor change = rows_times(set, all_positions(s.n), combine(dry.theta, -1, gather(*s.model, s.subset)));
  double largest = 0;
  int64_t at = -1;
  for (int64_t i = 0; i < s.n; i++)
    if (const double size = norm(change.select(0, i)); i != 3 && size > largest) largest = size, at = i;
  CHECK(dry.most_affected[0].id == at);
  CHECK(dry.most_affected[0].predicted == Approx(largest).epsilon(1e-12));
  for (size_t i = 1; i < 5; i++) CHECK(dry.most_affected[i].predicted <= dry.most_affected[i - 1].predicted);

  const std::string tried = record_page(dry.json(), "R");
  CHECK_THAT(tried, Catch::Contains("dry run") && Catch::Contains("Samples that remain and change most"));
  const RequestRecord real = state.forget({3}, {.command = {"fastntk", "forget", "<&\">"}});
  const std::string page = record_page(read_file(state.record_path(1)), "R");
  CHECK_THAT(page, Catch::Contains("Request 1: 1 sample forgotten") && Catch::Contains(real.weights_after) &&
                       Catch::Contains("<svg") && Catch::Contains("&lt;&amp;&quot;&gt;"));
  // Nothing is loaded and nothing runs.
  for (const char* const word : {"<script", "src=", "<link", "url(", "@import"})
    CHECK_THAT(page, !Catch::Contains(word));
  CHECK_THROWS_WITH(record_page("{}", "R"), Catch::Contains("R is not the record"));
  std::string forged = read_file(state.record_path(1));
  const size_t ids = forged.find("\"ids\"");
  forged.replace(forged.find('3', ids), 1, "\"<img src=x>\"");
  CHECK_THROWS(record_page(forged, "R"));
}
