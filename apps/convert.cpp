// fastntk convert: tensors from one file to another, as they are or as those of a model.
#include "apps/common.h"
#include "engine/file.h"
#include "engine/safetensors_index.h"
#include "engine/sha256.h"
#include "engine/weights_file.h"
#include "models/head.h"

namespace fastntk::apps {
namespace {

struct Flags {
  Common common;
  std::string input, output, architecture, type, head = "zero", shard;
  int64_t classes = 0;
  bool replace = false;
};

std::optional<StoredType> floating_type(const std::string& text) {
  if (text.empty()) return std::nullopt;
  std::string name = text;
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return stored_type(name);
}

// The model's tensors under its own names, with its configuration, and whatever else of ours the file has.
SafeTensors as_model(const Flags& f, const SafeTensors& file) {
  Checkpoint checkpoint = load_model(f.input, f.architecture);
  const int64_t classes = checkpoint.model.config.classes;
  NamedTensors extra;
  if (f.classes && f.classes != classes) {
    require_usage(
        f.replace,
        "{} has {} classes, not {}; --replace-head gives it a new classifier (and drops what fine-tuning left)",
        f.input, classes, f.classes);
    checkpoint.model = replace_head(checkpoint.model, f.classes, head_rule(f.head), f.common.seed);
    for (const char* const of : {"finetune.", "unlearn."}) erase_entries(checkpoint.metadata, of);
  } else {
    for (const auto& entry : file.tensors)
      if (entry.first.starts_with("fastntk.")) extra.push_back(entry);
  }
  return model_file(checkpoint.model, std::move(checkpoint.metadata), extra);
}

void run(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  Report report = new_report(command);
  const bool sharded = f.output.ends_with(".safetensors.index.json");
  require_usage(sharded || f.output.ends_with(".safetensors"),
                "the output must end in .safetensors, or in .safetensors.index.json for shards, got '{}'", f.output);
  require_usage(sharded == !f.shard.empty(),
                "--shard-size and an output that ends in .safetensors.index.json go together");
  require_usage(f.classes >= 0, "--classes must be positive, got {}", f.classes);
  require_usage(!f.replace || f.classes > 0,
                "--replace-head needs --classes, the number of classes of the new classifier");

  check_output(f.output);
  SafeTensors file = load_weights(f.input);
  const bool model = !f.architecture.empty() || ModelConfig::from_map(file.metadata);
  require_usage(model || !f.classes, "{} has no configuration of a model: --classes needs --arch", f.input);
  if (model) file = as_model(f, file);
  const auto floating = floating_type(f.type);
  if (sharded)
    save_sharded(f.output, file, static_cast<int64_t>(parse_bytes(f.shard)), floating);
  else
    file.save(f.output, floating);

  report.results["tensors"] = static_cast<double>(file.tensors.size());
  report.notes["sha256"] = sha256_of_file(f.output);
  const auto config = ModelConfig::from_map(file.metadata);
  fmt::print("{}: {} tensors{}\nsha256 {}\n", f.output, file.tensors.size(), config ? ", " + config->str() : "",
             report.notes["sha256"]);
  finish(report, f.common);
}

}  // namespace

void add_convert(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("convert", "write the tensors of any file that is known as safetensors");
  c->add_option("input", f->input, "a .safetensors file, the .index.json of several, or a .pth or .pt file of torch")
      ->required();
  c->add_option("output", f->output, "the file to write: .safetensors, or .safetensors.index.json for shards")
      ->required();
  c->add_option("--arch", f->architecture,
                "make it a model file of this architecture: names are mapped, everything must fit, and the "
                "configuration is stored; without it foreign tensors keep their names");
  c->add_option("--dtype", f->type, "how tensors of floating point are stored; default: as they are read")
      ->check(CLI::IsMember({"f64", "f32", "f16", "bf16"}, CLI::ignore_case));
  c->add_option("--classes", f->classes, "the number of classes that is expected, or wanted with --replace-head");
  c->add_flag("--replace-head", f->replace, "make a new classifier where the number of classes differs");
  c->add_option("--head", f->head, "the new classifier: zero, keep-and-zero or keep-and-random (rows of new classes)")
      ->capture_default_str();
  c->add_option("--shard-size", f->shard, "bytes of data per shard, e.g. 500M");
  add_common(*c, f->common);
  c->callback([f, c] { run(*f, *c); });
}

}  // namespace fastntk::apps
