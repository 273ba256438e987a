// fastntk ntk: the neural tangent kernel, its spectrum, and pictures of both.
#include "unlearn/ntk.h"
#include "apps/common.h"
#include "engine/npy.h"
#include "engine/progress.h"
#include "engine/safetensors.h"

namespace fastntk::apps {
namespace {

struct NtkFlags {
  Common common;
  InputFlags input, second;
  std::string model, architecture, output, subset = "bn", representation = "auto";
  bool trace = false, breakdown = false;
};

// Where each parameter's columns begin, for the metadata.
std::map<std::string, std::string> columns(const Subset& subset) {
  std::map<std::string, std::string> m = {{"subset", subset.specification},
                                          {"parameters", std::to_string(subset.size())}};
  for (size_t i = 0; i < subset.entries.size(); i++)
    m[fmt::format("columns.{:04}", i)] =
        fmt::format("{} {} {}", subset.entries[i].name, subset.entries[i].offset, subset.entries[i].shape.str());
  return m;
}

// Disjoint parts of a subset that make all of it: those of its specification where it has several, else one for each
// module at the top of the model.
std::vector<std::pair<std::string, Subset>> parts_of(const Module& model, const Subset& subset) {
  std::vector<std::pair<std::string, Subset>> parts;
  const auto add = [&](const std::string& name, const Subset::Entry& e) {
    auto at = std::find_if(parts.begin(), parts.end(), [&](const auto& part) { return part.first == name; });
    if (at == parts.end()) at = parts.insert(parts.end(), {name, Subset{.specification = name}});
    Subset::Entry entry = e;
    entry.offset = at->second.size();
    at->second.entries.push_back(entry);
  };
  const std::vector<SubsetPart> specification = subset_parts(subset.specification);
  for (const Subset::Entry& e : subset.entries) {
    std::string name = e.name.substr(0, e.name.find('.'));
    if (specification.size() > 1)
      for (const SubsetPart& part : specification) {
        const Subset chosen = choose(model, part.text);
        if (std::none_of(chosen.entries.begin(), chosen.entries.end(),
                         [&](const Subset::Entry& other) { return other.index == e.index; }))
          continue;
        name = part.text;  // the first part that has it
        break;
      }
    add(name, e);
  }
  return parts;
}

// Rows of a kernel to a file, some at a time.
class KernelWriter {
 public:
  KernelWriter(const std::string& path, const std::map<std::string, std::string>& metadata,
               const std::vector<std::string>& names, int64_t rows, int64_t columns) {
    const Shape shape{rows, columns};
    if (path.ends_with(".npy")) {
      npy_ = std::make_unique<NpyWriter>(path, DType::float64, shape);
      return;
    }
    std::vector<SafeTensorsWriter::Declaration> tensors;
    for (const std::string& name : names) tensors.push_back({name, DType::float64, shape});
    safetensors_ = std::make_unique<SafeTensorsWriter>(path, metadata, tensors);
  }
  void write(const std::string& name, const NtkKernel& kernel) {
    constexpr int64_t rows = 64;
    for (int64_t from = 0; from < kernel.rows(); from += rows) {
      const Tensor part = kernel.dense_rows(from, std::min(kernel.rows(), from + rows));
      if (npy_)
        npy_->append(part);
      else
        safetensors_->append(name, part);
    }
  }
  void commit() {
    if (npy_)
      npy_->commit();
    else
      safetensors_->commit();
  }

 private:
  std::unique_ptr<NpyWriter> npy_;
  std::unique_ptr<SafeTensorsWriter> safetensors_;
};

void run_ntk(const NtkFlags& f, const CLI::App& command) {
  apply_common(f.common);
  require_usage(f.output.ends_with(".safetensors") || f.output.ends_with(".npy"),
                "the output must end in .safetensors or .npy, got '{}'", f.output);
  require_usage(!f.breakdown || f.output.ends_with(".safetensors"),
                "--breakdown writes several kernels, which only a .safetensors file holds");
  const NtkRepresentation representation = ntk_representation(f.representation);
  Report report = new_report(command);
  const Checkpoint checkpoint = open_model(f.model, f.architecture);
  const Module& model = *checkpoint.model;
  const Subset subset = choose(model, f.subset);
  const Samples first = load_inputs(f.input, checkpoint, f.common);
  require(first.size() > 0, "'{}' chooses no samples", f.input.data.rules);
  Samples second;
  if (!f.second.input.empty() || !f.second.data.rules.empty()) {
    second = load_inputs(f.second, checkpoint, f.common);
    require(second.size() > 0, "'{}' chooses no samples", f.second.data.rules);
  }
  NtkOptions options{.representation = representation,
                     .memory = parse_bytes(f.common.memory),
                     .trace = f.trace,
                     .progress = f.output + ".ntk-partial",
                     .title = "ntk"};
  const Stopwatch clock;
  NtkComputation computation(model, subset, first.inputs, second.inputs, options);
  fmt::print("{}", computation.choice().str());
  reset_peak_memory();
  const size_t live = memory_statistics().live;
  std::vector<std::pair<std::string, Subset>> parts;
  std::vector<std::string> names = {"ntk"};
  if (f.breakdown) parts = parts_of(model, subset);
  for (const auto& [name, part] : parts) names.push_back("ntk." + name);

  std::optional<NtkKernel> kernel = computation.kernel();
  const auto peak = static_cast<double>(memory_statistics().peak - live);
  const double total_trace = kernel->symmetric() ? kernel->trace() : 0;
  std::map<std::string, std::string> metadata = columns(subset);
  metadata["kernel"] = f.trace ? "class average" : "class blocks";
  KernelWriter writer(f.output, metadata, names, kernel->rows(), kernel->columns());
  report.results = {{"rows", static_cast<double>(kernel->rows())},
                    {"columns", static_cast<double>(kernel->columns())},
                    {"parameters", static_cast<double>(subset.size())},
                    {"predicted_bytes", computation.choice().plan.bytes},
                    {"predicted_flops", computation.choice().plan.flops},
                    {"peak_bytes", peak},
                    {"resumed_tiles", static_cast<double>(computation.resumed())}};
  report.notes["representation"] = name_of(computation.choice().plan.representation);
  report.notes["why"] = computation.choice().reason;
  writer.write("ntk", *kernel);
  for (const auto& [name, part] : parts) {
    kernel.reset();
    options.progress = fmt::format("{}.{}.ntk-partial", f.output, name);
    options.title = "ntk " + name;
    kernel = NtkComputation(model, part, first.inputs, second.inputs, options).kernel();
    writer.write("ntk." + name, *kernel);
    fmt::print("  {}: P = {}", name, part.size());
    report.results["parameters." + name] = static_cast<double>(part.size());
    if (kernel->symmetric()) {
      report.results["trace_share." + name] = kernel->trace() / total_trace;
      fmt::print(", {:.2f}% of the trace", 100 * kernel->trace() / total_trace);
    }
    fmt::print("\n");
  }
  writer.commit();
  report.results["seconds"] = clock.seconds();
  fmt::print(
      "{}: Θ float64 [{}, {}] ({}), P = {}, {}, peak {} of {} predicted\n", f.output,
      static_cast<int64_t>(report.results["rows"]), static_cast<int64_t>(report.results["columns"]),
      f.trace ? "rows and columns: samples; averaged over classes" : "rows and columns: sample, class; class fastest",
      subset.size(), format_duration(report.results["seconds"]), format_bytes(peak),
      format_bytes(report.results["predicted_bytes"]));
  finish(report, f.common);
}

}  // namespace

void add_ntk(CLI::App& app) {
  auto f = std::make_shared<NtkFlags>();
  f->second.data.rules.clear();
  CLI::App* const c = app.add_subcommand("ntk", "neural tangent kernel, float64 [N·C, M·C], of one or two sets");
  c->add_option("model", f->model, "model file (.safetensors)")->required();
  c->add_option("--arch", f->architecture, "architecture, for a checkpoint without our configuration");
  c->add_option("-o,--output", f->output, "file to write, .safetensors or .npy")->required();
  add_input_flags(*c, f->input);
  c->add_option("--input2", f->second.input, "the second set, a tensor file; default: the first set again");
  c->add_option("--samples2", f->second.data.rules, "the second set, samples of the data set");
  c->add_option("--subset", f->subset, "bn, head, bias, all, joined by +, or patterns over parameter names")
      ->capture_default_str();
  c->add_option("--representation", f->representation,
                "auto, thin, thin-file, primal, dual or matrix-free: how the kernel is computed (docs/ntk.md)")
      ->capture_default_str();
  c->add_flag("--trace", f->trace, "the average over classes, [N, M], in the place of all class blocks");
  c->add_flag("--breakdown", f->breakdown, "also the kernels of the parts of the subset, which add up to it");
  add_common(*c, f->common);
  c->callback([f, c] {
    f->second.data.name = f->input.data.name;
    f->second.data.transform = f->input.data.transform;
    f->second.part = f->input.part;
    run_ntk(*f, *c);
  });
}

}  // namespace fastntk::apps
