// fastntk roofline: what the Jacobian of a network asks of the kernel families, and the time below which a device of
// given peaks cannot do it (docs/gpu.md).
#include <algorithm>

#include "apps/common.h"
#include "engine/counting_backend.h"
#include "engine/random.h"
#include "models/registry.h"
#include "unlearn/jacobian.h"

namespace fastntk::apps {
namespace {

struct Flags {
  Common common;
  std::string architecture, subset;
  std::vector<std::string> options;
  int64_t classes = 10, channels = 3, side = 32, samples = 8;
  // NVIDIA H100 SXM by its data sheet: float32 without tensor cores, memory.
  double tflops = 67, terabytes = 3.35;
};

struct Line {
  std::string family;
  KernelWork work;
  double compute = 0, memory = 0;  // seconds at the peaks
  double least() const { return std::max(compute, memory); }
};

template <class Run>
std::map<std::string, KernelWork> counted(Run&& run) {
  const WorkCounter counter;
  run();
  return counter.work();
}

void run_roofline(const Flags& f, const CLI::App& command) {
  apply_common(f.common);
  require_usage(f.tflops > 0 && f.terabytes > 0, "--tflops and --bandwidth must be positive, got {} and {}", f.tflops,
                f.terabytes);
  require_usage(f.classes > 0 && f.channels > 0 && f.side > 0 && f.samples > 0,
                "--classes, --channels, --side and --samples must be positive");
  Report report = new_report(command);
  ModelConfig config{.architecture = f.architecture,
                     .classes = f.classes,
                     .channels = f.channels,
                     .image_height = f.side,
                     .image_width = f.side};
  put_options(config, f.options);
  const Model model = make_model(config, f.common.seed);
  const Subset subset = choose(*model, f.subset);
  const Tensor x = Random(f.common.seed, 1).normal_tensor({f.samples, f.side, f.side, f.channels});
  // All samples in one sweep, as a device that is wide enough has them; less what planning the sweep takes.
  const JacobianOptions options{.tile = f.samples};
  const auto planning = counted([&] { static_cast<void>(plan_jacobian(*model, subset, x, options)); });
  auto work = counted([&] { static_cast<void>(jacobian(*model, subset, x, options)); });
  for (const auto& [family, w] : planning) {
    KernelWork& of = work[family];
    of.launches -= w.launches, of.flops -= w.flops, of.bytes -= w.bytes;
  }
  std::vector<Line> lines;
  Line all{.family = "all"};
  for (const auto& [family, w] : work) {
    if (w.launches == 0) continue;
    lines.push_back({family, w, w.flops / (f.tflops * 1e12), w.bytes / (f.terabytes * 1e12)});
    all.work.launches += w.launches, all.work.flops += w.flops, all.work.bytes += w.bytes;
    all.compute += lines.back().compute, all.memory += lines.back().memory;
  }
  std::sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.least() > b.least(); });
  double total = 0;
  for (const Line& l : lines) total += l.least();
  fmt::print(
      "Jacobian of {} samples, {}, subset {}, P = {}, C = {}; peaks {:g} Tflop/s and {:g} TB/s. Counted, not measured: "
      "every operand is "
      "read once and every result written once in a launch.\n\n"
      "| family | launches | Gflop | GB | flop/byte | at least ms | bound by | share |\n"
      "|---|---:|---:|---:|---:|---:|---|---:|\n",
      f.samples, f.architecture, f.subset, subset.size(), f.classes, f.tflops, f.terabytes);
  lines.push_back(all);
  for (const Line& l : lines) {
    const bool whole = l.family == "all";
    const double least = whole ? total : l.least();
    fmt::print("| {} | {} | {:.4g} | {:.4g} | {:.3g} | {:.4g} | {} | {:.1f}% |\n", l.family, l.work.launches,
               l.work.flops / 1e9, l.work.bytes / 1e9, l.work.flops / std::max(l.work.bytes, 1.0), 1e3 * least,
               whole                  ? ""
               : l.compute > l.memory ? "arithmetic"
                                      : "memory",
               total > 0 ? 100 * least / total : 0);
    report.results[l.family + " flops"] = l.work.flops;
    report.results[l.family + " bytes"] = l.work.bytes;
    report.results[l.family + " launches"] = static_cast<double>(l.work.launches);
    report.results[l.family + " seconds_at_least"] = least;
  }
  fmt::print("\nat most {:.0f} samples/s\n", static_cast<double>(f.samples) / total);
  finish(report, f.common);
}

}  // namespace

void add_roofline(CLI::App& app) {
  auto f = std::make_shared<Flags>();
  CLI::App* const c = app.add_subcommand(
      "roofline", "count what a network's Jacobian asks of the kernels, and bound the time on a device of given peaks");
  c->add_option("arch", f->architecture, "architecture (fastntk info lists them)")->required();
  c->add_option("--subset", f->subset, "parameters that are tuned")->required();
  c->add_option("--option", f->options, "options of the architecture, NAME=VALUE");
  c->add_option("--classes", f->classes, "classes")->capture_default_str();
  c->add_option("--channels", f->channels, "channels of the images")->capture_default_str();
  c->add_option("--side", f->side, "pixels of the images in either direction")->capture_default_str();
  c->add_option("--samples", f->samples, "samples of the sweep")->capture_default_str();
  c->add_option("--tflops", f->tflops, "peak of float32 arithmetic, Tflop/s; default: NVIDIA H100 SXM, data sheet")
      ->capture_default_str();
  c->add_option("--bandwidth", f->terabytes, "peak of memory, TB/s; default: the same")->capture_default_str();
  add_common(*c, f->common);
  c->callback([f, c] { run_roofline(*f, *c); });
}

}  // namespace fastntk::apps
