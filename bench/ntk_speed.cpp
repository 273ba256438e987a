// How fast the neural tangent kernel between two sets of images is: all class blocks, float32 rows, no file.
//     bench_ntk_speed write CASE N FILE        weights and two sets of N images, for everyone who computes it
//     bench_ntk_speed run CASE FILE OUT THREADS PRODUCTS   the kernel, to OUT (.safetensors); one JSON line
//     bench_ntk_speed compare A B              the largest difference of two kernels beside A's largest element
//     bench_ntk_speed table LINES              what `run` and its peers printed, medians over equal runs, in Markdown
//     bench_ntk_speed summary LINES            the same in short: a row for each case
// CASE conv-all | conv-head+bias | mlp-all: network, and the parameters whose kernel it is. bench/ntk_torch.py and
// bench/ntk_jax.py compute the same with others' libraries; bench/ntk.sh runs all in turn.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "engine/file.h"
#include "engine/ops/elementwise.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/random.h"
#include "engine/safetensors.h"
#include "models/layers.h"
#include "models/registry.h"
#include "unlearn/ntk.h"

using namespace fastntk;

namespace {

constexpr int64_t classes = 10, side = 32, channels = 3;

// Two 3×3 convolutions with bias, each followed by ReLU and 2×2 max pooling, and a classifier on all of their output.
class SmallConvNet final : public Module {
 public:
  SmallConvNet() {
    const Conv2dOptions same{.padding = {1, 1}};
    conv1_ = &add_child("conv1", std::make_unique<Conv2d>(channels, 32, 3, same, true));
    conv2_ = &add_child("conv2", std::make_unique<Conv2d>(32, 64, 3, same, true));
    fc_ = &add_child("fc", std::make_unique<Linear>(64 * (side / 4) * (side / 4), classes));
  }
  Variable forward(const Pass& pass, const Variable& x) const override {
    Variable y = max_pool2d(relu(conv1_->forward(pass, x)), {});
    y = max_pool2d(relu(conv2_->forward(pass, y)), {});
    return fc_->forward(pass, flatten_image(y));
  }
  std::string head() const override { return "fc"; }

 private:
  const Conv2d *conv1_, *conv2_;
  const Linear* fc_;
};

struct Case {
  Model model;
  Subset subset;
};

Case make_case(const std::string& name) {
  const size_t dash = name.find('-');
  const std::string network = name.substr(0, dash);
  require_usage(dash != std::string::npos && (network == "conv" || network == "mlp"),
                "the case must be conv-SUBSET or mlp-SUBSET, got '{}'", name);
  Case out;
  if (network == "conv") {
    out.model.module = std::make_unique<SmallConvNet>();
    out.model->initialise(1);
  } else {
    out.model = make_model(
        {.architecture = "mlp", .classes = classes, .channels = channels, .image_height = side, .image_width = side},
        1);
  }
  out.subset = choose(*out.model, name.substr(dash + 1));
  return out;
}

void write(const std::string& name, int64_t n, const std::string& path) {
  const Case c = make_case(name);
  SafeTensors file;
  for (const auto& [key, p] : std::as_const(*c.model).named_parameters()) file.tensors.emplace_back(key, p->value);
  file.tensors.emplace_back("images.first", Random(2).normal_tensor({n, side, side, channels}));
  file.tensors.emplace_back("images.second", Random(3).normal_tensor({n, side, side, channels}));
  std::string tuned;
  for (const Subset::Entry& e : c.subset.entries) tuned += (tuned.empty() ? "" : " ") + e.name;
  file.metadata["tuned"] = tuned;
  file.save(path);
  fmt::print("{}\n", c.subset.size());
}

const Tensor& tensor_of(const SafeTensors& file, const std::string& name, const std::string& path) {
  const Tensor* const found = file.find(name);
  require(found != nullptr, "{} has no tensor {}", path, name);
  return *found;
}

void run(const std::string& name, const std::string& path, const std::string& output, DType products) {
  const Case c = make_case(name);
  const SafeTensors file = SafeTensors::load(path);
  for (const auto& [key, p] : c.model->named_parameters()) p->value.copy_from(tensor_of(file, key, path));
  const Tensor &first = tensor_of(file, "images.first", path), &second = tensor_of(file, "images.second", path);
  const size_t before = peak_resident_bytes();
  const Stopwatch clock;
  NtkComputation computation(*c.model, c.subset, first, second, {.products = products});
  const NtkKernel kernel = computation.kernel();
  const double seconds = clock.seconds();
  const nlohmann::json out = {
      {"program", "fastntk"},
      {"case", name},
      {"n", first.extent(0)},
      {"parameters", c.subset.size()},
      {"threads", thread_count()},
      {"method", fmt::format("{}, {} products", name_of(computation.choice().plan.representation), name_of(products))},
      {"predicted_bytes", computation.choice().plan.bytes},
      {"seconds", seconds},
      {"peak_bytes", peak_resident_bytes()},
      {"work_bytes", peak_resident_bytes() - before}};
  SafeTensors result;
  result.tensors.emplace_back("ntk", kernel.dense());
  result.save(output);
  fmt::print("{}\n", out.dump());
}

void compare(const std::string& path_a, const std::string& path_b) {
  const auto load = [](const std::string& path) {
    return tensor_of(SafeTensors::load(path), "ntk", path).to(DType::float64).contiguous();
  };
  const Tensor a = load(path_a), b = load(path_b);
  require(a.shape() == b.shape(), "kernels of different shapes, {} and {}", a.shape().str(), b.shape().str());
  double difference = 0, largest = 0;
  for (int64_t i = 0; i < a.elements(); i++) {
    const double x = a.data<double>()[i], d = std::fabs(x - b.data<double>()[i]);
    require(std::isfinite(d), "element {} of the kernels is {} and {}", i, x, b.data<double>()[i]);
    difference = std::max(difference, d), largest = std::max(largest, std::fabs(x));
  }
  fmt::print("{:.2e}\n", difference / largest);
}

// Runs of one program in one way on one case.
struct Runs {
  nlohmann::json first;
  std::vector<double> seconds, peak, work;
  double difference = 0;  // the largest
};

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  const size_t half = v.size() / 2;
  return v.size() % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
}

// In the order of their first appearance.
std::vector<Runs> read_runs(const std::string& path) {
  std::vector<Runs> out;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json run = nlohmann::json::parse(line);
    const auto same = [&](const Runs& r) {
      return r.first["case"] == run["case"] && r.first["program"] == run["program"] &&
             r.first["method"] == run["method"];
    };
    auto at = std::find_if(out.begin(), out.end(), same);
    if (at == out.end()) at = out.insert(out.end(), Runs{.first = run});
    at->seconds.push_back(run["seconds"]);
    at->peak.push_back(run["peak_bytes"]);
    at->work.push_back(run["work_bytes"]);
    at->difference = std::max(at->difference, run.value("difference", 0.0));
  }
  return out;
}

// The runs of fastntk on the case that `other` has.
const Runs& ours_beside(const std::vector<Runs>& all, const Runs& other) {
  for (const Runs& r : all)
    if (r.first["case"] == other.first["case"] && r.first["program"] == "fastntk") return r;
  fail("no run of fastntk on {}", other.first["case"].dump());
}

void print_table(const std::string& path) {
  const std::vector<Runs> all = read_runs(path);
  fmt::print("| case | P | program | way | seconds | beside ours | peak | of it at work | difference |\n");
  fmt::print("|---|---:|---|---|---:|---:|---:|---:|---:|\n");
  for (const Runs& r : all) {
    const Runs& ours = ours_beside(all, r);
    fmt::print("| {} | {} | {} | {} | {:.2f} | {:.1f}× | {} | {} | {} |\n", r.first["case"].get<std::string>(),
               r.first["parameters"].get<int64_t>(), r.first["program"].get<std::string>(),
               r.first["method"].get<std::string>(), median(r.seconds), median(r.seconds) / median(ours.seconds),
               format_bytes(median(r.peak)), format_bytes(median(r.work)),
               &r == &ours ? "–" : fmt::format("{:.0e}", r.difference));
  }
}

void print_summary(const std::string& path) {
  const std::vector<Runs> all = read_runs(path);
  fmt::print("| case | P | fastntk | torch.func | neural-tangents |\n|---|---:|---:|---:|---:|\n");
  std::vector<nlohmann::json> cases;
  for (const Runs& of_case : all) {
    const nlohmann::json& name = of_case.first["case"];
    if (std::find(cases.begin(), cases.end(), name) != cases.end()) continue;
    cases.push_back(name);
    fmt::print("| {} | {} |", name.get<std::string>(), of_case.first["parameters"].get<int64_t>());
    double ours = 0;
    for (const char* const program : {"fastntk", "torch.func", "neural-tangents"}) {
      const Runs* best = nullptr;
      for (const Runs& r : all)
        if (r.first["case"] == name && r.first["program"] == program &&
            (!best || median(r.seconds) < median(best->seconds)))
          best = &r;
      if (!best) {
        fmt::print(" – |");
        continue;
      }
      const double seconds = median(best->seconds);
      fmt::print(" {:.2f} s, {}", seconds, format_bytes(median(best->peak)));
      if (ours == 0)
        ours = seconds;
      else
        fmt::print(" ({:.1f}×)", seconds / ours);
      fmt::print(" |");
    }
    fmt::print("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "write" && argc == 5) {
      write(argv[2], std::stoll(argv[3]), argv[4]);
    } else if (what == "run" && argc == 7) {
      set_thread_count(std::stoi(argv[5]));
      const std::string products = argv[6];
      require_usage(products == "float32" || products == "float64", "products must be float32 or float64, got '{}'",
                    products);
      run(argv[2], argv[3], argv[4], products == "float32" ? DType::float32 : DType::float64);
    } else if (what == "compare" && argc == 4) {
      compare(argv[2], argv[3]);
    } else if (what == "table" && argc == 3) {
      print_table(argv[2]);
    } else if (what == "summary" && argc == 3) {
      print_summary(argv[2]);
    } else {
      throw UsageError(
          "usage: bench_ntk_speed write CASE N FILE | run CASE FILE OUT THREADS PRODUCTS | compare A B | "
          "table LINES | summary LINES");
    }
    return 0;
  } catch (const UsageError& e) {
    fmt::print(stderr, "bench_ntk_speed: {}\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_ntk_speed: {}\n", e.what());
    return 1;
  }
}
