// fastntk ntk: the neural tangent kernel, its spectrum, and pictures of both.
#include "unlearn/ntk.h"
#include <cmath>
#include <filesystem>
#include "unlearn/rows.h"
#include "unlearn/spectrum.h"
#include "unlearn/svg.h"

#include "apps/common.h"
#include "engine/file.h"
#include "engine/npy.h"
#include "engine/progress.h"
#include "engine/safetensors.h"

namespace fastntk::apps {
namespace {

struct NtkFlags {
  Common common;
  InputFlags input, second;
  std::string model, architecture, output, subset = "bn", representation = "auto", products = "float64";
  std::string plot;
  std::optional<std::string> rank;
  double ridge = 0;
  int64_t top = 0;
  bool trace = false, breakdown = false, spectrum = false;
};

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
    tensors.reserve(names.size());
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

// The kernel, and with --breakdown those of its parts, one after another.
void write_kernels(const NtkFlags& f, const Module& model, const Subset& subset, const Samples& first,
                   const Samples& second, NtkOptions options, NtkKernel whole, Report& report) {
  std::vector<std::pair<std::string, Subset>> parts;
  if (f.breakdown) parts = parts_of(model, subset);
  std::vector<std::string> names = {"ntk"};
  for (const auto& [name, part] : parts) names.push_back("ntk." + name);
  std::optional<NtkKernel> kernel = std::move(whole);
  const double total = kernel->symmetric() ? kernel->trace() : 0;
  std::map<std::string, std::string> metadata = columns_of(subset);
  metadata["kernel"] = f.trace ? "class average" : "class blocks";
  std::vector<std::string> unfinished;
  KernelWriter writer(f.output, metadata, names, kernel->rows(), kernel->columns());
  writer.write("ntk", *kernel);
  for (const auto& [name, part] : parts) {
    kernel.reset();
    options.purpose = NtkPurpose::block;
    unfinished.push_back(options.progress = fmt::format("{}.{}.ntk-partial", f.output, name));
    options.title = "ntk " + name;
    kernel = NtkComputation(model, part, first.inputs, second.inputs, options).kernel();
    writer.write("ntk." + name, *kernel);
    fmt::print("  {}: P = {}", name, part.size());
    report.results["parameters." + name] = static_cast<double>(part.size());
    if (kernel->symmetric()) {
      report.results["trace_share." + name] = kernel->trace() / total;
      fmt::print(", {:.2f}% of the trace", 100 * kernel->trace() / total);
    }
    fmt::print("\n");
  }
  writer.commit();
  for (const std::string& file : unfinished) std::filesystem::remove(file);
}

// y of kernel-target alignment: one-hot, [n, C].
Tensor targets_of(const Samples& samples, int64_t classes) {
  Tensor y = Tensor::zeros({samples.size(), classes}, DType::float64);
  const auto labels = samples.labels.to_vector<int64_t>();
  for (size_t i = 0; i < labels.size(); i++)
    if (labels[i] < classes) y.mutable_data<double>()[static_cast<int64_t>(i) * classes + labels[i]] = 1;
  return y;
}

// yᵀΘy; for a class average ⟨K, YYᵀ⟩_F, the sum over classes.
double target_product(const SymmetricMatrix& kernel, const Tensor& targets, bool trace) {
  const Tensor y = trace ? targets : targets.reshape({targets.elements()});
  const Tensor product = kernel.multiply(y);
  double sum = 0;
  for (int64_t i = 0; i < y.elements(); i++) sum += product.data<double>()[i] * y.data<double>()[i];
  return sum;
}

// ‖yyᵀ‖_F = yᵀy = n; for a class average ‖YYᵀ‖_F = √Σ_c n_c².
double target_square(const Tensor& targets, bool trace) {
  const int64_t n = targets.extent(0), C = targets.extent(1);
  double total = 0, squares = 0;
  for (int64_t c = 0; c < C; c++) {
    double count = 0;
    for (int64_t i = 0; i < n; i++) count += targets.data<double>()[i * C + c];
    total += count, squares += count * count;
  }
  return trace ? std::sqrt(squares) : total;
}

// The cosines between the samples' rows, K_ij/√(K_ii K_jj) with K the class average, samples ordered by label.
HeatMap kernel_image(const NtkKernel& kernel, int64_t per_sample, const Samples& samples) {
  const int64_t n = kernel.rows() / per_sample;
  std::vector<int64_t> order = all_positions(n);
  if (samples.labels.defined()) {
    const auto labels = samples.labels.to_vector<int64_t>();
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return labels[static_cast<size_t>(a)] < labels[static_cast<size_t>(b)];
    });
  }
  std::vector<double> average(static_cast<size_t>(n * n), 0.0);
  for (int64_t i = 0; i < n; i++) {
    const Tensor rows = kernel.dense_rows(i * per_sample, (i + 1) * per_sample);
    for (int64_t j = 0; j < n; j++)
      for (int64_t c = 0; c < per_sample; c++)
        average[static_cast<size_t>(i * n + j)] += rows.data<double>()[c * n * per_sample + j * per_sample + c];
  }
  Tensor image({n, n}, DType::float64);
  const auto at = [&](int64_t i, int64_t j) {
    return average[static_cast<size_t>(order[static_cast<size_t>(i)] * n + order[static_cast<size_t>(j)])];
  };
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) image.mutable_data<double>()[i * n + j] = at(i, j) / std::sqrt(at(i, i) * at(j, j));
  const std::string label = samples.labels.defined() ? "sample, by label" : "sample";
  return {
      .title = "kernel (class average)", .x_label = label, .y_label = label, .value_label = "cosine", .values = image};
}

Plot spectrum_plot(const Spectrum& spectrum, const std::string& title, double ridge) {
  PlotSeries values{.label = "eigenvalues", .markers = spectrum.values.size() <= 50}, level{.label = "ρ"};
  for (size_t k = 0; k < spectrum.values.size(); k++) {
    // What is below the rounding of the largest says nothing.
    if (spectrum.values[k] <= 1e-15 * spectrum.values[0]) break;
    values.x.push_back(static_cast<double>(k + 1)), values.y.push_back(spectrum.values[k]);
  }
  Plot plot{.title = title, .x = {"index", true}, .y = {"eigenvalue", true}, .series = {values}};
  if (ridge > 0 && !values.x.empty()) {
    level.x = {1, values.x.back()}, level.y = {ridge, ridge};
    plot.series.push_back(level);
  }
  return plot;
}

// Prints the spectrum and keeps it in the report.
void report_spectrum(const Spectrum& s, const NtkFlags& f, double alignment, Report& report) {
  std::string first;
  for (size_t k = 0; k < std::min<size_t>(s.values.size(), 8); k++) first += fmt::format(" {:.6g}", s.values[k]);
  fmt::print("spectrum: {} of {} eigenvalues{}; the largest:{}\n", s.values.size(), s.size,
             s.steps                                          ? fmt::format(" by {} Lanczos steps", s.steps)
             : static_cast<int64_t>(s.values.size()) < s.size ? ", the others are zero"
                                                              : "",
             first);
  for (size_t k = 0; k < s.values.size(); k++) report.results[fmt::format("eigenvalue.{:06}", k)] = s.values[k];
  report.results["eigenvalues"] = static_cast<double>(s.values.size());
  if (s.steps) report.results["lanczos_steps"] = s.steps;
  if (s.complete) {
    report.results["condition_number"] = condition_number(s, f.ridge);
    fmt::print("condition number {:.4g} at ρ = {:g}\n", report.results["condition_number"], f.ridge);
  }
  if (s.complete && f.ridge > 0) {
    report.results["effective_dimension"] = effective_dimension(s, f.ridge);
    fmt::print("effective dimension tr(Θ(Θ+ρI)⁻¹) = {:.4f} of {}\n", report.results["effective_dimension"], s.size);
  }
  if (!std::isnan(alignment)) {
    report.results["alignment"] = alignment;
    fmt::print("kernel-target alignment {:.4f}\n", alignment);
  }
}

NtkPurpose purpose_of(const NtkFlags& f) {
  if (f.top) return NtkPurpose::top_eigenvalues;
  return f.spectrum || !f.plot.empty() ? NtkPurpose::spectrum : NtkPurpose::block;
}

void check_flags(const NtkFlags& f, bool two) {
  require_usage(f.output.empty() || f.output.ends_with(".safetensors") || f.output.ends_with(".npy"),
                "the output must end in .safetensors or .npy, got '{}'", f.output);
  require_usage(!f.output.empty() || f.spectrum || f.top || !f.plot.empty(),
                "nothing was asked for: give -o FILE, --spectrum, --top K or --plot FILE");
  require_usage(!f.breakdown || f.output.ends_with(".safetensors"),
                "--breakdown writes several kernels, which only a .safetensors file holds");
  require_usage(f.top >= 0 && f.ridge >= 0, "--top and --ridge must not be negative, got {} and {}", f.top, f.ridge);
  require_usage(f.plot.empty() || f.plot.ends_with(".svg"), "a plot is an SVG file, whose name ends in .svg, got '{}'",
                f.plot);
  require_usage(f.ridge == 0 || f.spectrum || !f.plot.empty(),
                "--ridge is for the effective dimension and the condition number: give --spectrum or --plot");
  require_usage(!f.top || !f.spectrum, "--spectrum computes all eigenvalues, --top some of them: give one");
  if (f.rank) {
    parse_rank(*f.rank);
    require_usage(!f.plot.empty(),
                  "--rank leaves its sums beside the file of --plot, for the run without it: give one");
    require_usage(ntk_representation(f.representation) == NtkRepresentation::primal,
                  "ranks share the sums of the primal representation: give --representation primal to each, and to the "
                  "run without --rank");
  }
  require_usage(!two || purpose_of(f) == NtkPurpose::block, "a kernel between two sets has no eigenvalues");
}

// The sums of one rank, for the run without a rank.
void run_rank(NtkComputation& computation, const Rank& rank, const Tensor& targets, int64_t samples, const NtkFlags& f,
              Report& report) {
  const Stopwatch clock;
  const RankFile sums = computation.gram_of_rank(rank, targets);
  report.results = {{"first", static_cast<double>(sums.first)},
                    {"last", static_cast<double>(sums.last)},
                    {"resumed", static_cast<double>(computation.resumed())},
                    {"seconds", clock.seconds()}};
  fmt::print("{}: sums over samples {} to {} of {}, {}; once all {} ranks are done, the same command without --rank\n",
             sums.file, sums.first, sums.last, samples, format_duration(report.results["seconds"]), rank.count);
  finish(report, f.common);
}

void run_ntk(const NtkFlags& f, const CLI::App& command) {
  apply_common(f.common);
  const bool two = !f.second.input.empty() || !f.second.data.rules.empty();
  check_flags(f, two);
  if (!f.rank) check_outputs({f.output, f.plot});
  const NtkRepresentation representation = ntk_representation(f.representation);
  const NtkPurpose purpose = purpose_of(f);
  Report report = new_report(command);
  const Checkpoint checkpoint = open_model(f.model, f.architecture);
  Module& model = *checkpoint.model;
  model.to(device_of(f.common));
  const Subset subset = choose(model, f.subset);
  const Samples first = load_inputs(f.input, checkpoint, f.common);
  require_usage(first.size() > 0, "'{}' chooses no samples", f.input.data.rules);
  Samples second;
  if (two) {
    second = load_inputs(f.second, checkpoint, f.common);
    require_usage(second.size() > 0, "'{}' chooses no samples", f.second.data.rules);
  }
  const std::string beside = f.output.empty() ? f.plot : f.output;
  NtkOptions options{.purpose = purpose,
                     .elements = !f.output.empty(),
                     .representation = representation,
                     .memory = parse_bytes(f.common.memory),
                     .trace = f.trace,
                     .products = f.products == "float32" ? DType::float32 : DType::float64,
                     .vectors = f.top,
                     .iterations = f.top ? 3 * f.top + 20 : 100,
                     .progress = beside.empty() ? "" : beside + ".ntk-partial",
                     .title = "ntk"};
  const Stopwatch clock;
  const int64_t eigenvalues = first.size() * (f.trace ? 1 : checkpoint.model.config.classes);
  require_usage(f.top <= eigenvalues, "--top {}: the kernel of {} samples has {} eigenvalues", f.top, first.size(),
                eigenvalues);
  NtkComputation computation(model, subset, first.inputs, second.inputs, options);
  const NtkPlan& plan = computation.choice().plan;
  fmt::print("{}", computation.choice().str());
  const int64_t C = model.forward(Pass(), first.inputs.slice(0, 0, 1).to(model.device())).extent(1),
                R = f.trace ? 1 : C;
  const Tensor targets = first.labels.defined() && !two ? targets_of(first, C) : Tensor();

  if (f.rank) return run_rank(computation, parse_rank(*f.rank), targets, first.size(), f, report);

  const Device device = model.device();
  reset_peak_memory();
  const size_t live = memory_statistics().live;
  if (device != Device::cpu) reset_peak_memory(device);
  const size_t device_live = memory_statistics(device).live;
  std::optional<NtkKernel> kernel;
  std::optional<Spectrum> spectrum;
  double alignment = std::nan("");
  const int64_t size = first.size() * R;
  if (plan.representation == NtkRepresentation::primal) {
    const Gram gram = computation.gram(targets);
    spectrum = full_spectrum(gram.matrix, size);
    if (targets.defined()) {
      double product = 0;
      for (int64_t p = 0; p < subset.size(); p++)
        product += gram.right_hand_side.data<double>()[p] * gram.right_hand_side.data<double>()[p];
      alignment = kernel_target_alignment(product, frobenius_norm(gram.matrix), target_square(targets, false));
    }
  } else if (plan.representation == NtkRepresentation::matrix_free) {
    const JacobianOperator J(model, subset, first.inputs, gather(model, subset));
    const Positions all = all_positions(first.size());
    // JᵀJ has the eigenvalues of Θ, and takes one JVP and one VJP.
    spectrum = largest_eigenvalues([&](const Tensor& v) { return J.gram_times(all, v); }, subset.size(),
                                   std::min(f.top, std::min(size, subset.size())),
                                   first.inputs.dtype() == DType::float64 ? 1e-10 : 1e-5);
    spectrum->size = size;
  } else {
    kernel = computation.kernel();
    if (purpose == NtkPurpose::spectrum) spectrum = full_spectrum(kernel->matrix(), size);
    if (purpose == NtkPurpose::top_eigenvalues)
      spectrum = largest_eigenvalues([&](const Tensor& v) { return kernel->matrix().multiply(v); }, size,
                                     std::min(f.top, size), 1e-10);
    if (targets.defined())
      alignment = kernel_target_alignment(target_product(kernel->matrix(), targets, f.trace),
                                          frobenius_norm(kernel->matrix()), target_square(targets, f.trace));
  }
  const auto peak = static_cast<double>(memory_statistics().peak - live);
  report.results = {{"rows", static_cast<double>(size)},
                    {"columns", static_cast<double>(two ? second.size() * R : size)},
                    {"parameters", static_cast<double>(subset.size())},
                    {"predicted_bytes", plan.bytes},
                    {"predicted_flops", plan.flops},
                    {"peak_bytes", peak},
                    {"peak_resident_bytes", static_cast<double>(peak_resident_bytes())},
                    {"resumed", static_cast<double>(computation.resumed())}};
  std::string on_device;
  if (device != Device::cpu) {
    const auto device_peak = static_cast<double>(memory_statistics(device).peak - device_live);
    report.results["predicted_device_bytes"] = plan.device_bytes, report.results["peak_device_bytes"] = device_peak;
    on_device =
        fmt::format("; of {} {} of {}", name_of(device), format_bytes(device_peak), format_bytes(plan.device_bytes));
  }
  report.notes["representation"] = name_of(plan.representation);
  report.notes["why"] = computation.choice().reason;
  if (spectrum)
    report_spectrum(*spectrum, f, alignment, report);
  else if (!std::isnan(alignment))
    report.results["alignment"] = alignment;
  if (!f.plot.empty()) {
    std::vector<Panel> panels = {spectrum_plot(
        *spectrum, fmt::format("{}, P = {}, n = {}", subset.specification, subset.size(), first.size()), f.ridge)};
    if (kernel) panels.emplace_back(kernel_image(*kernel, R, first));
    write_file_atomically(f.plot, svg_figure(panels));
    fmt::print("{}: the spectrum{}\n", f.plot, kernel ? " and the kernel" : "");
  }
  if (!f.output.empty()) write_kernels(f, model, subset, first, second, options, std::move(*kernel), report);
  computation.remove_progress();
  report.results["seconds"] = clock.seconds();
  fmt::print(
      "{}Θ [{}, {}] ({}), P = {}, {}, peak {} of {} predicted{}\n", f.output.empty() ? "" : f.output + ": ",
      static_cast<int64_t>(report.results["rows"]), static_cast<int64_t>(report.results["columns"]),
      f.trace ? "rows and columns: samples; averaged over classes" : "rows and columns: sample, class; class fastest",
      subset.size(), format_duration(report.results["seconds"]), format_bytes(peak), format_bytes(plan.bytes),
      on_device);
  finish(report, f.common);
}

}  // namespace

void add_ntk(CLI::App& app) {
  auto f = std::make_shared<NtkFlags>();
  f->second.data.rules.clear();
  CLI::App* const c = app.add_subcommand("ntk", "neural tangent kernel, float64 [N·C, M·C], of one or two sets");
  c->add_option("model", f->model, "model file (.safetensors)")->required();
  c->add_option("--arch", f->architecture, "architecture, for a checkpoint without our configuration");
  c->add_option("-o,--output", f->output, "file for the kernel, .safetensors or .npy");
  add_input_flags(*c, f->input);
  c->get_option("--input")->excludes(c->get_option("--samples"));  // the others are of --samples2 as well
  c->add_option("--input2", f->second.input, "the second set, a tensor file; default: the first set again");
  c->add_option("--samples2", f->second.data.rules, "the second set, samples of the data set");
  c->add_option("--subset", f->subset, "bn, head, bias, all, joined by +, or patterns over parameter names")
      ->capture_default_str();
  c->add_option("--representation", f->representation,
                "auto, thin, thin-file, primal, dual or matrix-free: how the kernel is computed (docs/ntk.md)")
      ->capture_default_str();
  c->add_option("--products", f->products,
                "float64, or float32: rows are multiplied twice as fast, with an error of about 1e-6 of the kernel")
      ->check(CLI::IsMember({"float64", "float32"}))
      ->capture_default_str();
  c->add_flag("--spectrum", f->spectrum, "all eigenvalues, and what they say");
  c->add_option("--top", f->top, "this many of the largest eigenvalues, by Lanczos's method");
  c->add_option("--ridge", f->ridge, "ρ of the effective dimension and the condition number")->capture_default_str();
  c->add_option("--plot", f->plot, "write the spectrum, and the kernel as an image, to this SVG file");
  c->add_option("--rank", f->rank,
                "K/N: sum JᵀJ over the K-th of N parts of the samples alone (K from 0), for a run without --rank after "
                "them; each in a process, on a GPU or a machine of its own; with --representation primal and --plot");
  c->add_flag("--trace", f->trace, "the average over classes, [N, M], in the place of all class blocks");
  c->add_flag("--breakdown", f->breakdown, "also the kernels of the parts of the subset, which add up to it");
  add_device_flag(*c, f->common);
  add_common(*c, f->common);
  c->callback([f, c] {
    f->second.data.name = f->input.data.name;
    f->second.data.transform = f->input.data.transform;
    f->second.part = f->input.part;
    run_ntk(*f, *c);
  });
}

}  // namespace fastntk::apps
