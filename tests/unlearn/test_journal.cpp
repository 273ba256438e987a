// The journal: what was acknowledged is there, in order, or its loss is named.
#include <catch2/catch.hpp>

#include "engine/file.h"
#include "temporary_folder.h"
#include "unlearn/journal.h"

using namespace fastntk;

namespace {

std::string three_entries(const std::string& path) {
  Journal journal(path, Journal::Access::write);
  journal.append({.kind = "forget", .ids = {3}, .hashes = {{"weights", "a"}}});
  journal.append({.kind = "forget", .ids = {5, 7}});
  journal.append({.kind = "restore", .ids = {3}});
  return read_file(path);
}

// The head of a journal with these lines after entry `number`.
std::string head_after(const std::string& text, int number) {
  size_t at = 0;
  for (int k = 1; k < number; k++) at = text.find('\n', at) + 1;
  const std::string mark = "\"hash\":\"";
  return std::to_string(number) + " " + text.substr(text.find(mark, at) + mark.size(), 64) + "\n";
}

}  // namespace

TEST_CASE("a journal gives back what was appended", "[journal]") {
  const TemporaryFolder folder;
  three_entries(folder / "journal");
  const Journal journal(folder / "journal");
  REQUIRE(journal.entries().size() == 3);
  CHECK(journal.entries()[0].hashes.at("weights") == "a");
  CHECK(journal.entries()[1].ids == std::vector<int64_t>{5, 7});
  CHECK(journal.entries()[2].number == 3);
  CHECK(journal.entries()[2].kind == "restore");
  CHECK(journal.last_hash() == journal.entries()[2].hash);
  CHECK(journal.last_hash().size() == 64);
  CHECK_THROWS_WITH(Journal(folder / "none"), Catch::Contains("none"));
}

TEST_CASE("a journal whose last line was never finished is the one before, and goes on from there", "[journal]") {
  const TemporaryFolder folder;
  const std::string text = three_entries(folder / "whole");
  const size_t last = text.rfind('\n', text.size() - 2) + 1;
  const std::string head = head_after(text, 2);
  for (size_t size = last; size < text.size(); size++) {
    folder.write("torn.head", head);
    const std::string path = folder.write("torn", text.substr(0, size));
    CHECK(Journal(path).entries().size() == 2);
    Journal(path, Journal::Access::write).append({.kind = "restore", .ids = {3}});
    CHECK(read_file(path) == text);
    CHECK(read_file(path + ".head") == read_file(folder / "whole.head"));
  }
  // Killed after the line and before the head: the entry is there.
  folder.write("torn.head", head);
  CHECK(Journal(folder / "torn").entries().size() == 3);
}

TEST_CASE("a journal that lost what was acknowledged is refused", "[journal]") {
  const TemporaryFolder folder;
  const std::string text = three_entries(folder / "whole"), head = read_file(folder / "whole.head");
  CHECK(head == head_after(text, 3));
  folder.write("cut.head", head);
  for (size_t size = 0; size < text.size(); size++)
    CHECK_THROWS_WITH(Journal(folder.write("cut", text.substr(0, size))), Catch::Contains("3 were acknowledged"));
  folder.write("cut", text);
  for (size_t i = 0; i < head.size(); i++) {
    std::string damaged = head;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    folder.write("cut.head", damaged);
    INFO(damaged);
    CHECK_THROWS_WITH(Journal(folder / "cut"), Catch::Contains("cut.head is damaged"));
  }
  folder.write("cut.head", "");
  CHECK_THROWS_WITH(Journal(folder / "cut"), Catch::Contains("cut.head") && Catch::Contains("missing"));
}

TEST_CASE("a changed byte, a line missing or out of order is named", "[journal]") {
  const TemporaryFolder folder;
  const std::string text = three_entries(folder / "whole");
  for (const char* const name : {"damaged.head", "gap.head", "headless.head", "empty line.head"})
    folder.write(name, read_file(folder / "whole.head"));
  const size_t second = text.find('\n') + 1, third = text.find('\n', second) + 1;
  // The last byte is the end of the last line: without it the entry is not there.
  for (size_t i = 0; i + 1 < text.size(); i++) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    const std::string path = folder.write("damaged", damaged);
    INFO(i << ": " << damaged);
    CHECK_THROWS_WITH(Journal(path), Catch::Contains("line " + std::string(i < second ? "1" : i < third ? "2" : "3")));
  }
  CHECK_THROWS_WITH(Journal(folder.write("gap", text.substr(0, second) + text.substr(third))),
                    Catch::Contains("line 2: entry 3 stands where entry 2 must"));
  CHECK_THROWS_WITH(Journal(folder.write("headless", text.substr(second))), Catch::Contains("line 1"));
  CHECK_THROWS_WITH(Journal(folder.write("empty line", text + "\n")), Catch::Contains("line 4"));
}

TEST_CASE("a journal has one writer", "[journal]") {
  const TemporaryFolder folder;
  Journal writer(folder / "journal", Journal::Access::write);
  CHECK_THROWS_WITH(Journal(folder / "journal", Journal::Access::write), Catch::Contains("another process"));
  writer.append({.kind = "forget", .ids = {1}});
  Journal reader(folder / "journal");
  CHECK(reader.entries().size() == 1);
  CHECK_THROWS_WITH(reader.append({.kind = "forget"}), Catch::Contains("opened for reading"));
}
