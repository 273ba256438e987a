// fastntk info: what this build and machine have, or what is in a file.
#include "apps/common.h"
#include "datasets/registry.h"
#include "engine/blas.h"
#include "engine/cpu/dispatch.h"
#include "engine/op.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/safetensors.h"
#include "engine/sha256.h"

namespace fastntk::apps {
namespace {

struct Flags {
  Common common;
  std::string file;
  bool ops = false;
};

void about_file(const std::string& path, Report& report) {
  const SafeTensorsHeader header = read_safetensors_header(path);
  fmt::print("{}\nsha256 {}\n", path, sha256_of_file(path));
  report.notes["sha256"] = sha256_of_file(path);
  for (const auto& [key, value] : header.metadata) {
    fmt::print("  {:<28} {}\n", key, value);
    report.config[key] = value;
  }
  int64_t elements = 0;
  for (const TensorEntry& t : header.tensors) {
    fmt::print("  {:<44} {:<8} {}\n", t.name, name_of(t.dtype), t.shape.str());
    elements += t.shape.elements();
  }
  fmt::print("{} tensors, {} elements\n", header.tensors.size(), elements);
  report.results["tensors"] = static_cast<double>(header.tensors.size());
  report.results["elements"] = static_cast<double>(elements);
  NamedShapes shapes;
  for (const TensorEntry& t : header.tensors) shapes[t.name] = t.shape;
  if (const auto config = ModelConfig::from_map(header.metadata)) {
    fmt::print("model: {}\n", config->str());
    return;
  }
  for (const std::string& name : architecture_names()) {
    try {
      fmt::print("could be: {} (use --arch {})\n", infer_config(name, shapes).str(), name);
    } catch (const Error&) {
      // The shapes are not of this architecture: that is what is being asked.
    }
  }
}

void about_machine(const Flags& f, Report& report) {
  const double one = measured_sgemm_gflops(1), all = measured_sgemm_gflops(thread_count());
  report.results = {{"sgemm_gflops_1_thread", one}, {"sgemm_gflops", all}, {"threads", thread_count()}};
  report.notes["blas"] = blas_version() + ", kernel set " + blas_kernel_set();
  fmt::print("fastntk {}\n", FASTNTK_VERSION);
  fmt::print("own kernels    {}\n", cpu::name_of(cpu::isa()));
  fmt::print("BLAS           {}, kernel set {}\n", blas_version(), blas_kernel_set());
  fmt::print("sgemm          {:.0f} Gflop/s on 1 thread, {:.0f} on {}\n", one, all, thread_count());
  fmt::print("devices        cpu ({} threads)\n", thread_count());
  fmt::print("architectures ");
  for (const auto& name : architecture_names()) fmt::print(" {}", name);
  fmt::print("\nlosses        ");
  for (const auto& name : loss_names()) fmt::print(" {}", name);
  fmt::print("\ndata sets     ");
  for (const auto& d : registered_datasets()) fmt::print(" {}", d.name);
  fmt::print("\nops            {} (--ops lists them)\n", registered_ops().size());
  if (f.ops)
    for (const OpInfo* const op : registered_ops())
      fmt::print("  {:<24} {:<52} {}\n", op->name, op->value, op->differential);
}

}  // namespace

void add_info(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand("info", "this build and machine, or what is in a model file");
  c->add_option("file", f->file, "a .safetensors file");
  c->add_flag("--ops", f->ops, "list the ops with their mathematics");
  add_common(*c, f->common);
  c->callback([f, c] {
    apply_common(f->common);
    Report report = new_report(*c);
    if (f->file.empty())
      about_machine(*f, report);
    else
      about_file(f->file, report);
    finish(report, f->common);
  });
}

}  // namespace fastntk::apps
