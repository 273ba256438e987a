// fastntk keygen: keys that records are signed with.
#include "apps/common.h"
#include "engine/signature.h"

namespace fastntk::apps {

void add_keygen(CLI::App& app) {
  struct Flags {
    Common common;
    std::string output;
  };
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand(
      "keygen", "make a pair of Ed25519 keys, for `forget --sign` and `verify --public-key`, as PEM files");
  c->add_option("-o,--output", f->output, "file for the private key, NAME.pem; the public one becomes NAME.pub.pem")
      ->required();
  add_common(*c, f->common);
  c->callback([f, c] {
    apply_common(f->common);
    Report report = new_report(*c);
    require_usage(f->output.ends_with(".pem"), "the private key's file must end in .pem, got '{}'", f->output);
    const std::string open = f->output.substr(0, f->output.size() - 4) + ".pub.pem";
    SignatureKey::make(f->output, open);
    report.notes["key_sha256"] = SignatureKey::read_public(open).fingerprint();
    fmt::print("{} (keep it secret) and {}: the key {}\n", f->output, open, report.notes["key_sha256"]);
    finish(report, f->common);
  });
}

}  // namespace fastntk::apps
