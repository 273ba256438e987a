// What products in bf16 cost and bring (docs/ntk.md): a ViT-B/32 with random weights and 10 prompts on Fashion-MNIST
// resized to 224, as in bench/headline.sh. Rows of N samples both ways, and the step Δ by which the first tenth is
// forgotten.
//     bench_precision [N, 200]
#include <fmt/core.h>

#include "datasets/registry.h"
#include "engine/blas.h"
#include "engine/parallel.h"
#include "engine/parse_number.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "models/registry.h"
#include "unlearn/fast_ntk.h"
#include "unlearn/jacobian.h"
#include "unlearn/metrics.h"
#include "unlearn/ntk_rows.h"

using namespace fastntk;

namespace {

struct Outcome {
  double seconds = 0;
  Jacobian jacobian;
  Tensor delta;
};

double apart(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(DType::float64).contiguous(), y = b.to(DType::float64).contiguous();
  return norm(combine(x, -1, y)) / norm(y);
}

Outcome run(Precision precision, const Model& model, const Subset& subset, const Samples& samples) {
  set_linear_precision(precision);
  Outcome out;
  const Positions few = all_positions(std::min<int64_t>(samples.size(), 4));
  static_cast<void>(jacobian(*model, subset, select(samples, few).inputs));  // packs the weights
  const Stopwatch clock;
  out.jacobian = jacobian(*model, subset, samples.inputs);
  out.seconds = clock.seconds();
  const Tensor theta = gather(*model, subset);
  const double ridge = 0.01 * static_cast<double>(samples.size());
  const LinearisedSet set{out.jacobian.rows, out.jacobian.logits, samples.labels};
  FastNtk rules(set, all_positions(samples.size() / 10), theta, theta, find_loss("mse"), ridge, ridge);
  out.delta = combine(rules.update("shift").theta, -1, theta);
  return out;
}

int compare(int64_t n) {
  const Transform transform = Transform::parse("resize:224x224:bicubic,rgb,normalise:inception");
  const Dataset all = load_dataset("fashion-mnist");
  const Dataset data = all.subset(all_positions(n)).transformed(transform);
  const Samples samples{.inputs = data.images_as_float(all_positions(n), *transform.normalisation(3), DType::float32),
                        .labels = data.labels(),
                        .ids = data.ids()};
  const Model model = make_model(
      {.architecture = "vit_base_patch32_224", .classes = 10, .channels = 3, .options = {{"prompts", "10"}}}, 0);
  const Subset subset = choose(*model, "prompt");
  const Outcome full = run(Precision::float32, model, subset, samples),
                low = run(Precision::bf16, model, subset, samples);
  // Of a sample: one pass forwards, and one backwards for every class.
  const double flops = static_cast<double>(n) * 11 * forward_flops(*model, select(samples, {0}).inputs);
  fmt::print("n = {}, {} threads, sgemm {:.0f} Gflop/s\n\n", n, thread_count(), measured_sgemm_gflops(thread_count()));
  fmt::print(
      "| products | rows, samples/s | Gflop/s | error of J | of the logits | of Δ |\n|---|---:|---:|---:|---:|---:|\n");
  fmt::print("| float32 | {:.2f} | {:.0f} | | | |\n", static_cast<double>(n) / full.seconds,
             flops / full.seconds / 1e9);
  fmt::print("| bf16 | {:.2f} | {:.0f} | {:.1e} | {:.1e} | {:.1e} |\n", static_cast<double>(n) / low.seconds,
             flops / low.seconds / 1e9, apart(low.jacobian.rows, full.jacobian.rows),
             apart(low.jacobian.logits, full.jacobian.logits), apart(low.delta, full.delta));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int64_t n = argc == 2 ? parse_number<int64_t>(argv[1]).value_or(0) : 200;
    require_usage(argc <= 2 && n >= 10, "usage: bench_precision [N], N at least 10");
    return compare(n);
  } catch (const UsageError& e) {
    fmt::print(stderr, "bench_precision: {}\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_precision: {}\n", e.what());
    return 1;
  }
}
