// fastntk info: what this build and machine have, or what is in a file.
#include "apps/common.h"
#include "datasets/registry.h"
#include "engine/blas.h"
#include "engine/cpu/dispatch.h"
#include "engine/device.h"
#include "engine/op.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/sha256.h"
#include "engine/weights_file.h"

namespace fastntk::apps {
namespace {

struct Flags {
  Common common;
  std::string file;
  bool ops = false, devices = false;
};

// Which architectures the tensors fit, or, where none does, which come nearest.
void about_architecture(const NamedShapes& shapes, Report& report) {
  const std::vector<Fit> fits = fitting_architectures(shapes);
  std::string names;
  for (const Fit& fit : fits) {
    if (fit.differences) break;
    fmt::print("fits: {} (use --arch {})\n", fit.config.str(), fit.config.architecture);
    names += (names.empty() ? "" : " ") + fit.config.architecture;
  }
  report.notes["fits"] = names;
  if (!names.empty()) return;
  fmt::print("no architecture that is known fits\n");
  for (size_t i = 0; i < std::min<size_t>(fits.size(), 2); i++)
    fmt::print("  {} would: {}\n", fits[i].config.architecture, fits[i].text);
}

void about_file(const std::string& path, Report& report) {
  const WeightsListing listing = list_weights(path);
  const std::string sha256 = sha256_of_file(path);
  fmt::print("{} ({})\nsha256 {}\n", path, listing.format, sha256);
  report.notes["sha256"] = sha256;
  report.notes["format"] = listing.format;
  for (const auto& [key, value] : listing.metadata) {
    fmt::print("  {:<28} {}\n", key, value);
    report.config[key] = value;
  }
  int64_t elements = 0;
  NamedShapes shapes;
  for (const auto& [name, type, shape] : listing.tensors) {
    fmt::print("  {:<44} {:<5} {}\n", name, name_of(type), shape.str());
    elements += shape.elements();
    shapes[name] = shape;
  }
  fmt::print("{} tensors, {} elements\n", listing.tensors.size(), elements);
  report.results["tensors"] = static_cast<double>(listing.tensors.size());
  report.results["elements"] = static_cast<double>(elements);
  if (const auto config = ModelConfig::from_map(listing.metadata))
    fmt::print("model: {}\n", config->str());
  else
    about_architecture(shapes, report);
}

void about_machine(const Flags& f, Report& report) {
  const double one = measured_sgemm_gflops(1), all = measured_sgemm_gflops(thread_count());
  report.results = {{"sgemm_gflops_1_thread", one}, {"sgemm_gflops", all}, {"threads", thread_count()}};
  report.notes["blas"] = blas_version() + ", kernel set " + blas_kernel_set();
  fmt::print("fastntk {}\n", FASTNTK_VERSION);
  fmt::print("own kernels    {}\n", cpu::name_of(cpu::isa()));
  fmt::print("BLAS           {}, kernel set {}\n", blas_version(), blas_kernel_set());
  fmt::print("sgemm          {:.0f} Gflop/s on 1 thread, {:.0f} on {}\n", one, all, thread_count());
  fmt::print("devices        cpu ({} threads), emu", thread_count());
  const bool gpu = reason_unavailable(Device::cuda).empty();
  fmt::print("{} (--devices says more)\n", gpu ? ", cuda" : "");
  fmt::print("architectures ");
  for (const auto& name : architecture_names()) fmt::print(" {}", name);
  fmt::print("\nlosses        ");
  for (const auto& name : loss_names()) fmt::print(" {}", name);
  fmt::print("\ndata sets\n");
  for (const auto& d : registered_datasets()) fmt::print("  {:<14} {}\n", d.name, d.help);
  fmt::print("transforms     resize, crop, grey, rgb, normalise; presets:");
  for (const auto& [name, text] : transform_presets()) fmt::print(" {}", name);
  fmt::print("\nops            {} (--ops lists them)\n", registered_ops().size());
  if (f.ops)
    for (const OpInfo* const op : registered_ops())
      fmt::print("  {:<24} {:<52} {}{}\n", op->name, op->value, op->differential, op->host_only ? " (cpu only)" : "");
}

void about_devices(Report& report) {
  for (const std::string& line : describe_devices()) fmt::print("{}\n", line);
  const std::string reason = reason_unavailable(Device::cuda);
  report.notes["cuda"] = reason.empty() ? "can be used" : reason;
}

}  // namespace

void add_info(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c =
      app.add_subcommand("info", "this build and machine, or what is in a file of tensors and which models it fits");
  c->add_option("file", f->file, "a .safetensors file, the .index.json of several, or a .pth or .pt file of torch");
  c->add_flag("--ops", f->ops, "list the ops with their mathematics");
  c->add_flag("--devices", f->devices, "say what can run a model here, and why the rest cannot");
  add_common(*c, f->common);
  c->callback([f, c] {
    apply_common(f->common);
    require_usage(f->file.empty() || (!f->devices && !f->ops),
                  "--devices and --ops are about this program, not a file");
    Report report = new_report(*c);
    if (f->devices)
      about_devices(report);
    else if (f->file.empty())
      about_machine(*f, report);
    else
      about_file(f->file, report);
    finish(report, f->common);
  });
}

}  // namespace fastntk::apps
