// fastntk verify: the record of a request against what remains (docs/deletion.md).
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "apps/common.h"
#include "apps/state_data.h"
#include "engine/progress.h"
#include "unlearn/verify_record.h"

namespace fastntk::apps {
namespace {

namespace fs = std::filesystem;

struct Flags {
  Common common;
  std::string record, state, work, public_key;
  StateData data;
  bool replay = false;
  int64_t rows = -1;
};

// A folder that is gone with the object.
class WorkFolder {
 public:
  explicit WorkFolder(const std::string& parent) : path_(parent + "/fastntk-XXXXXX") {
    require(mkdtemp(path_.data()) != nullptr, "cannot make a folder in {}: {}", parent, std::strerror(errno));
  }
  ~WorkFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Against the state and what remains, and by a replay.
void check_state(const Flags& f, const RecordFile& record, Report& report) {
  const Prepared state = Prepared::open(f.state, Journal::Access::read, device_of(f.common));
  static_cast<void>(journal_entry(record, state));
  const JacobianOptions options{.memory = parse_bytes(f.common.memory)};
  const Verification v = verify_record(
      record, state, samples_at(f.data, f.common, state, state.present_after(record.entry)), options, f.rows);
  if (f.rows >= 0)
    fmt::print("rows of {} samples, drawn by the hash of the record, differ from the state's by {:.2e} of their norm\n",
               std::min(f.rows, v.retained), v.rows_difference);
  fmt::print(
      "entry {} verified: record, journal and hashes of weights and samples agree; θ from the {} samples that remain "
      "differs by {:.2e} (at most {:.2e}, condition about {:.1e})\n",
      record.entry, v.retained, v.difference, v.bound, v.condition);
  report.results = {{"entry", static_cast<double>(record.entry)},
                    {"difference", v.difference},
                    {"bound", v.bound},
                    {"condition", v.condition}};
  if (f.replay) {
    const WorkFolder work(f.work.empty() ? fs::temp_directory_path().string() : f.work);
    const size_t prepared = state.present_after(0).size();
    replay_record(record, state, samples_at(f.data, f.common, state, all_positions(std::ssize(state.ids()))),
                  work.path() + "/state", options);
    fmt::print(
        "entry {} replayed from the {} samples that were prepared: every field of its result is the same bit for bit\n",
        record.entry, prepared);
  }
}

void run_verify(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  require_usage(
      !f.state.empty() || !f.public_key.empty(),
      "--state says where the weights are to be checked, --public-key whose signature; one of them is needed");
  require_usage(!f.state.empty() || !f.replay, "--replay needs --state");
  require_usage(f.replay || f.work.empty(), "--work is where --replay computes, which was not asked for");
  require_usage(f.rows >= 1 || command.count("--rows") == 0, "--rows must be 1 or more, got {}", f.rows);
  const RecordFile record = read_record(f.record);
  std::optional<SignatureKey> key;
  if (!f.public_key.empty()) key = SignatureKey::read_public(f.public_key);
  if (!f.state.empty()) check_state(f, record, report);
  if (key) {
    check_signature(record, *key);
    require(record.intact, "{} is damaged: the SHA-256 that it carries is not that of its contents", f.record);
    fmt::print("entry {}: the signature is that of the key {}{}\n", record.entry, key->fingerprint(),
               f.state.empty() ? "; its weights were not checked, for which there is --state" : "");
  } else if (record.signature) {
    fmt::print("entry {}: signed by the key {}, which was not checked, for which there is --public-key\n", record.entry,
               record.signature->key_sha256);
  }
  finish(report, f.common);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c =
      app.add_subcommand("verify", "compute the weights after a request again, from the samples that remain");
  c->add_option("record", f->record, "record of the request, record-NNNNNN.json")->required();
  c->add_option("--state", f->state, "folder with the prepared state");
  add_state_data_flags(*c, f->data);
  c->add_option("--rows", f->rows,
                "compute the rows of this many samples only, drawn by the record's hash, and take the others from the "
                "state; default: compute all");
  c->add_flag("--replay", f->replay,
              "also prepare and make the requests once more, from all samples, the forgotten among them; every field "
              "of the result must be the same bit for bit");
  c->add_option("--work", f->work, "folder for what --replay computes; default: that of temporary files");
  c->add_option("--public-key", f->public_key, "PEM file: the record must be signed with the private key of this one");
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] { run_verify(*f, *c); });
}

}  // namespace fastntk::apps
