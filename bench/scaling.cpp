// What a system of a ridge solve in the kernel costs, JᵀJ + ρI or Θ + ρI as the planner chooses, computed and factored:
// against n, P and C, with what the planner predicted.
//     bench_scaling THREADS FOLDER [DIVISOR]    scaling.json, scaling-seconds.svg and scaling-memory.svg to FOLDER
//     bench_scaling draw FOLDER scaling.json    the figures of points that were measured before
// ResNet-20 on Fashion-MNIST. DIVISOR: that many times fewer images, for a trial. bench/scaling.sh makes the figures of
// docs/ntk.md.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "datasets/idx.h"
#include "engine/cholesky.h"
#include "engine/file.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "models/registry.h"
#include "unlearn/ntk.h"
#include "unlearn/rows.h"
#include "unlearn/svg.h"

using namespace fastntk;

namespace {

constexpr double ridge = 10;

// One setting and what came out.
struct Point {
  int64_t n = 1000, classes = 10;
  std::string subset = "bn+head";
  int64_t parameters = 0;
  NtkPlan plan;
  double seconds = 0, bytes = 0;
};

// The points that one number tells apart.
struct Series {
  std::string name;
  std::vector<Point> points;
  double x(const Point& p) const {
    return static_cast<double>(name == "n" ? p.n : name == "P" ? p.parameters : p.classes);
  }
  // What is the same for all.
  std::string label() const {
    const Point& p = points.front();
    if (name == "n") return fmt::format("samples n (P = {}, C = {})", p.parameters, p.classes);
    if (name == "P") return fmt::format("parameters P (n = {}, C = {})", p.n, p.classes);
    return fmt::format("classes C (n = {}, P = {})", p.n, p.parameters);
  }
};

std::vector<Series> all_series() {
  Series n{.name = "n"};
  for (const int64_t samples : {500, 1000, 2000, 3500, 5000}) n.points.push_back({.n = samples});
  Series p{.name = "P"};
  std::string subset = "bn";
  p.points.push_back({.subset = "layer1.*.bn?.*,layer3.*.bn?.*"});
  p.points.push_back({.subset = subset});
  for (const char* const more : {"0.conv1", "0.conv2", "1.conv1", "1.conv2"}) {
    subset += fmt::format("+layer1.{}.weight", more);
    p.points.push_back({.subset = subset});
  }
  Series c{.name = "C"};
  for (const int64_t classes : {2, 5, 10, 20, 50, 100})
    c.points.push_back({.n = 500, .classes = classes, .subset = "bn"});
  return {n, p, c};
}

void measure(Point& point, const Tensor& images) {
  // A classifier that is not zero; what the weights are makes no difference to the work.
  const Model model = make_model({.architecture = "resnet20", .classes = point.classes, .channels = 1}, 1);
  const Subset subset = choose(*model, point.subset);
  point.parameters = subset.size();
  const Tensor inputs = images.slice(0, 0, point.n);
  NtkComputation computation(*model, subset, inputs, {}, {.purpose = NtkPurpose::solve, .vectors = 1});
  require(computation.choice().plan.representation != NtkRepresentation::matrix_free,
          "the planner chose products without a system, which this benchmark does not factor");
  const size_t before = memory_statistics().live;
  reset_peak_memory();
  const Stopwatch clock;
  if (computation.choice().plan.representation == NtkRepresentation::primal) {
    const Gram gram = computation.gram();
    const Cholesky factor(gram.matrix.clone(), ridge);
  } else {
    NtkKernel kernel = computation.kernel();
    const Cholesky factor(kernel.matrix().clone(), ridge);
  }
  point.seconds = clock.seconds();
  point.bytes = static_cast<double>(memory_statistics().peak - before);
  point.plan = computation.choice().plan;
}

// Measured and predicted values against the number that tells the points apart.
Plot plot_of(const Series& series, const std::string& what, const std::function<double(const Point&)>& measured,
             const std::function<double(const Point&)>& predicted) {
  PlotSeries line{.label = "predicted"}, marks{.label = "measured", .line = false, .markers = true};
  for (const Point& p : series.points) {
    line.x.push_back(series.x(p)), line.y.push_back(predicted(p));
    marks.x.push_back(series.x(p)), marks.y.push_back(measured(p));
  }
  return {.title = fmt::format("{} against {}", what, series.name),
          .x = {series.label(), true},
          .y = {what, true},
          .series = {line, marks}};
}

// Operations a second of passes through the network and of work in float64.
struct Rates {
  double sweeps = 0, products = 0;
  double seconds(const NtkPlan& plan) const {
    return (plan.flops - plan.double_flops) / sweeps + plan.double_flops / products;
  }
};

// The rates by which predicted and measured seconds differ least, in relation, by least squares.
Rates fitted_rates(const std::vector<Series>& all) {
  double aa = 0, ab = 0, bb = 0, a = 0, b = 0;  // of the normal equations for the two inverse rates
  for (const Series& series : all)
    for (const Point& p : series.points) {
      const double x = (p.plan.flops - p.plan.double_flops) / p.seconds, y = p.plan.double_flops / p.seconds;
      aa += x * x, ab += x * y, bb += y * y, a += x, b += y;
    }
  const double determinant = aa * bb - ab * ab;
  const Rates out{determinant / (bb * a - ab * b), determinant / (aa * b - ab * a)};
  require(out.sweeps > 0 && out.products > 0, "no two rates fit these points: {} and {} Gflop/s", out.sweeps / 1e9,
          out.products / 1e9);
  return out;
}

// The figures of these points.
void draw(const std::vector<Series>& all, const Rates& rates, const std::string& folder) {
  std::vector<Panel> seconds, memory;
  for (const Series& series : all) {
    seconds.emplace_back(plot_of(
        series, "seconds", [](const Point& p) { return p.seconds; },
        [&](const Point& p) { return rates.seconds(p.plan); }));
    memory.emplace_back(plot_of(
        series, "MiB", [](const Point& p) { return p.bytes / (1 << 20); },
        [](const Point& p) { return p.plan.bytes / (1 << 20); }));
  }
  write_file_atomically(folder + "/scaling-seconds.svg", svg_figure(seconds));
  write_file_atomically(folder + "/scaling-memory.svg", svg_figure(memory));
}

// Those of points that were measured before.
int draw_again(const std::string& file, const std::string& folder) {
  std::vector<Series> all = all_series();
  const nlohmann::json points = nlohmann::json::parse(read_file(file)).at("points");
  size_t at = 0;
  for (Series& series : all)
    for (Point& p : series.points) {
      const nlohmann::json& measured = points.at(at++);
      p.n = measured.at("n"), p.parameters = measured.at("P"), p.classes = measured.at("C");
      p.seconds = measured.at("seconds"), p.bytes = measured.at("bytes");
      p.plan.bytes = measured.at("predicted_bytes"), p.plan.flops = measured.at("predicted_flops");
      p.plan.double_flops = measured.at("predicted_double_flops");
    }
  draw(all, fitted_rates(all), folder);
  return 0;
}

int run(const std::string& folder, int64_t divisor) {
  std::vector<Series> all = all_series();
  int64_t most = 0;
  for (Series& series : all)
    for (Point& p : series.points) {
      p.n = std::max<int64_t>(10, p.n / divisor);
      most = std::max(most, p.n);
    }
  const Dataset data = load_fashion_mnist("", Part::train);
  const Tensor images = data.images_as_float(all_positions(most), measure_normalisation(data));

  nlohmann::json out = {{"threads", thread_count()}, {"points", nlohmann::json::array()}};
  for (Series& series : all)
    for (Point& p : series.points) {
      measure(p, images);
      out["points"].push_back({{"against", series.name},
                               {"n", p.n},
                               {"P", p.parameters},
                               {"C", p.classes},
                               {"subset", p.subset},
                               {"representation", name_of(p.plan.representation)},
                               {"seconds", p.seconds},
                               {"bytes", p.bytes},
                               {"predicted_flops", p.plan.flops},
                               {"predicted_double_flops", p.plan.double_flops},
                               {"predicted_bytes", p.plan.bytes}});
      fmt::print("n = {:>4}, P = {:>5}, C = {:>3}: {:>6}, {:>7.2f} s, {:.1f} Gflop/s, {} of {} predicted ({:+.1f}%)\n",
                 p.n, p.parameters, p.classes, name_of(p.plan.representation), p.seconds,
                 p.plan.flops / p.seconds / 1e9, format_bytes(p.bytes), format_bytes(p.plan.bytes),
                 100 * (p.bytes / p.plan.bytes - 1));
      std::fflush(stdout);
    }
  const Rates rates = fitted_rates(all);
  out["sweep_flops_per_second"] = rates.sweeps, out["double_flops_per_second"] = rates.products;
  double worst = 0;
  for (const Series& series : all)
    for (const Point& p : series.points) worst = std::max(worst, std::abs(rates.seconds(p.plan) / p.seconds - 1));
  fmt::print(
      "predicted seconds: passes through the network at {:.0f} Gflop/s, products of rows in float64 and what follows "
      "at {:.0f}, the two rates that fit all points best; the farthest is {:.0f}% off\n",
      rates.sweeps / 1e9, rates.products / 1e9, 100 * worst);
  write_file_atomically(folder + "/scaling.json", out.dump(1) + "\n");
  draw(all, rates, folder);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    require_usage(argc == 3 || argc == 4,
                  "usage: bench_scaling THREADS FOLDER [DIVISOR], or bench_scaling draw FOLDER scaling.json");
    if (argc == 4 && std::string(argv[1]) == "draw") return draw_again(argv[3], argv[2]);
    set_thread_count(std::stoi(argv[1]));
    return run(argv[2], argc == 4 ? std::stoll(argv[3]) : 1);
  } catch (const UsageError& e) {
    fmt::print(stderr, "bench_scaling: {}\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_scaling: {}\n", e.what());
    return 1;
  }
}
