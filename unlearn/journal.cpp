#include "unlearn/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "engine/descriptor.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/sha256.h"
#include "unlearn/flat_json.h"

namespace fastntk {
namespace {

using nlohmann::json;

// Keys in alphabetical order and no spaces: the same entry is always the same text.
json body_of(const JournalEntry& e) {
  return {{"number", e.number},   {"kind", e.kind}, {"ids", e.ids},
          {"arrived", e.arrived}, {"to", e.to},     {"representation", e.representation},
          {"hashes", e.hashes}};
}

std::string hash_of(const JournalEntry& e, const std::string& before) { return sha256(before + body_of(e).dump()); }

JournalEntry parse(const std::string& line) {
  const json j = json::parse(line);
  return {.number = integer(j.at("number")),
          .kind = j.at("kind").get<std::string>(),
          .ids = integers(j.at("ids")),
          .arrived = integers(j.at("arrived")),
          .to = integer(j.at("to")),
          .representation = j.at("representation").get<std::string>(),
          .hashes = j.at("hashes").get<std::map<std::string, std::string>>(),
          .hash = j.at("hash").get<std::string>()};
}

std::string line_of(const JournalEntry& e) {
  json j = body_of(e);
  j["hash"] = e.hash;
  return j.dump() + "\n";
}

std::string head_of(const JournalEntry& e) { return fmt::format("{} {}\n", e.number, e.hash); }

}  // namespace

Journal::Journal(std::string path, Access access) : path_(std::move(path)), access_(access) {
  if (access_ == Access::read) {
    read();
    return;
  }
  const bool is_new = !file_exists(path_);
  descriptor_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  require(descriptor_ >= 0, "cannot write {}: {}", path_, std::strerror(errno));
  try {
    lock_for_writing(descriptor_, path_);
    // The name, too, must be on the disk before an entry is acknowledged.
    if (is_new) sync_folder_of(path_);
    read();
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

Journal::~Journal() {
  if (descriptor_ >= 0) close(descriptor_);
}

void Journal::read() {
  // In this order: what is appended meanwhile must not make the head look newer than the journal.
  const std::string head_path = path_ + ".head", head = file_exists(head_path) ? read_file(head_path) : "",
                    text = read_file(path_);
  size_t at = 0;
  while (at < text.size()) {
    const size_t line_end = text.find('\n', at);
    if (line_end == std::string::npos) break;  // never acknowledged
    const int64_t number = static_cast<int64_t>(entries_.size()) + 1;
    const std::string line = text.substr(at, line_end - at);
    JournalEntry entry;
    try {
      entry = parse(line);
    } catch (const json::exception&) {
      fail("{}, line {}: this is not a journal entry", path_, number);
    }
    require(entry.number == number, "{}, line {}: entry {} stands where entry {} must", path_, number, entry.number,
            number);
    require(entry.hash == hash_of(entry, last_hash()) && line + "\n" == line_of(entry),
            "{}, line {}: the hash of entry {} is not that of its contents and the entries before it", path_, number,
            number);
    entries_.push_back(std::move(entry));
    at = line_end + 1;
  }
  end_ = static_cast<int64_t>(at);
  check_head(head);
}

void Journal::check_head(const std::string& head) const {
  if (head.empty()) {
    // One entry may have come just before its head.
    require(entries_.size() <= 1, "{} has {} entries, and {}.head, which says how many were acknowledged, is missing",
            path_, entries_.size(), path_);
    return;
  }
  int64_t number = 0;
  const auto [end, error] = std::from_chars(head.data(), head.data() + head.size(), number);
  require(error == std::errc() && number >= 1, "{}.head is damaged: it begins with no number of an entry", path_);
  require(number <= static_cast<int64_t>(entries_.size()),
          "{} ends after entry {}, and {} were acknowledged by {}.head: its end was lost; put it back from a copy",
          path_, entries_.size(), number, path_);
  require(head == head_of(entries_[static_cast<size_t>(number - 1)]),
          "{}.head is damaged: it does not have the hash of entry {}", path_, number);
}

const JournalEntry& Journal::append(JournalEntry entry) {
  require(access_ == Access::write, "{} was opened for reading", path_);
  entry.number = static_cast<int64_t>(entries_.size()) + 1;
  entry.hash = hash_of(entry, last_hash());
  const std::string line = line_of(entry);
  require(ftruncate(descriptor_, end_) == 0, "cannot write {}: {}", path_, std::strerror(errno));
  try {
    write_at(descriptor_, path_, end_, std::as_bytes(std::span(line)));
    if (const int reason = try_sync(descriptor_)) fail("cannot write {} to the disk: {}", path_, std::strerror(reason));
    write_file_atomically(path_ + ".head", head_of(entry));
  } catch (...) {
    // Not acknowledged, so it must not stay. If this fails, too, the entry is there for the next who reads.
    uncertain_ = ftruncate(descriptor_, end_) != 0;
    throw;
  }
  end_ += static_cast<int64_t>(line.size());
  entries_.push_back(std::move(entry));
  return entries_.back();
}

}  // namespace fastntk
