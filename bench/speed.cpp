// How fast a network runs: forward, Jacobian of the parameters that are tuned (batch norm of a ResNet, 10 prompts of a
// ViT), full training step. One JSON line on standard output.
//     bench_speed MODEL N WHAT THREADS [TILE]
// MODEL resnet20 | resnet18c | vit_base_patch32_224; WHAT forward | jacobian | train; TILE samples per sweep of the
// Jacobian, by default what the library chooses.
// bench/torch_peer.py does the same with PyTorch; bench/run.sh runs both in turn.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/random.h"
#include "models/registry.h"
#include "training/gradient.h"
#include "training/optimiser.h"
#include "unlearn/jacobian.h"

using namespace fastntk;

namespace {

constexpr int64_t classes = 10, train_batch = 128;

struct Case {
  ModelConfig config;
  int64_t side;  // of the images
  std::string subset;
};

Case find_case(const std::string& name) {
  if (name == "resnet20") return {{.architecture = "resnet20", .classes = classes, .channels = 1}, 28, "bn"};
  if (name == "resnet18c")
    return {{.architecture = "resnet18", .classes = classes, .channels = 3, .options = {{"stem", "cifar"}}}, 32, "bn"};
  require_usage(name == "vit_base_patch32_224",
                "the model must be resnet20, resnet18c or vit_base_patch32_224, got '{}'", name);
  return {{.architecture = name, .classes = classes, .channels = 3, .options = {{"prompts", "10"}}}, 224, "prompt"};
}

// Runs `work` for `samples` samples after a warm-up.
template <class Work>
double samples_per_second(int64_t samples, Work&& work) {
  work();
  const Stopwatch clock;
  work();
  return static_cast<double>(samples) / clock.seconds();
}

int run(const std::string& name, int64_t n, const std::string& what, int64_t tile) {
  const auto [config, side, tuned] = find_case(name);
  const Model model = make_model(config, 1);
  const Tensor x = Random(1).normal_tensor({what == "train" ? train_batch : n, side, side, config.channels});
  nlohmann::json out = {{"model", name}, {"what", what}, {"n", n}, {"threads", thread_count()}};
  const size_t before = peak_resident_bytes();
  if (what == "forward") {
    out["samples_per_second"] = samples_per_second(n, [&] { predict(*model, x); });
  } else if (what == "jacobian") {
    const Subset subset = choose(*model, tuned);
    const size_t j_bytes = static_cast<size_t>(n * classes * subset.size()) * sizeof(float);
    Jacobian j;
    const Stopwatch clock;
    j = jacobian(*model, subset, x, {.tile = tile});
    out["samples_per_second"] = static_cast<double>(n) / clock.seconds();
    out["parameters"] = subset.size();
    out["work_bytes"] = static_cast<double>(peak_resident_bytes() - before) - static_cast<double>(j_bytes);
    out["tile"] = plan_jacobian(*model, subset, x, {.tile = tile}).tile;
  } else if (what == "train") {
    const Subset subset = choose(*model, "all");
    Tensor labels = Tensor::zeros({train_batch}, DType::int64);
    for (int64_t i = 0; i < train_batch; i++) labels.mutable_data<int64_t>()[i] = i % classes;
    std::vector<Tensor> parameters;
    for (const auto& [key, p] : model->named_parameters()) parameters.push_back(p->value);
    Optimiser optimiser({.kind = "sgd", .momentum = 0.9, .nesterov = true}, parameters);
    const Loss& loss = find_loss("ce");
    const int64_t steps = std::max<int64_t>(1, n / train_batch);
    out["samples_per_second"] = samples_per_second(steps * train_batch, [&] {
      for (int64_t s = 0; s < steps; s++)
        optimiser.step(batch_gradient(*model, subset, Mode::train, x, labels, loss).gradient, 1e-4);
    });
  } else {
    throw UsageError("what to measure must be forward, jacobian or train, got '" + what + "'");
  }
  fmt::print("{}\n", out.dump());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    require_usage(argc == 5 || argc == 6, "usage: bench_speed MODEL N WHAT THREADS [TILE]");
    set_thread_count(std::stoi(argv[4]));
    return run(argv[1], std::stoll(argv[2]), argv[3], argc == 6 ? std::stoll(argv[5]) : 0);
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_speed: {}\n", e.what());
    return 2;
  }
}
