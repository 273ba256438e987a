#include "training/trainer.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "engine/device.h"
#include "engine/emu/sanitizers.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "models/registry.h"
#include "temporary_folder.h"
#include "training/loss.h"
#include "training/small_training.h"

using namespace fastntk;
using Catch::Contains;

namespace {

TrainConfig config_of(Mode mode) {
  TrainConfig config;
  config.mode = mode;
  config.epochs = 3;
  config.batch_size = 8;
  config.learning_rate = 0.05;
  config.schedule = {"cosine:0.2"};
  config.l2 = 0.01;
  config.augmentation = {.flip = true, .crop = 1};
  config.seed = 4;
  return config;
}

struct Trained {
  std::vector<double> contents, epoch_loss;
  int64_t steps;
};
Trained run(const TrainConfig& config, const std::string& subset, const std::optional<std::string>& checkpoint = {},
            uint64_t model_seed = 1, Device device = Device::cpu) {
  Progress::set_quiet(true);
  const Model model = small_resnet(DType::float32, model_seed);
  model->to(device);
  const TrainResult r = train(*model, choose(*model, subset), samples(21), config, "test", checkpoint);
  return {contents(*model), r.epoch_loss, r.steps};
}

// A loss that asks for an interrupt when it has been evaluated for the fifth time.
std::string interrupting_loss() {
  static const std::string name = [] {
    Loss loss = find_loss("ce");
    loss.name = "test-interrupting";
    loss.evaluate = [plain = loss.evaluate](const Variable& f, const Tensor& labels, double smoothing) {
      static int calls = 0;
      if (++calls == 5 && std::getenv("FASTNTK_TEST_CHECKPOINT")) std::raise(SIGINT);
      return plain(f, labels, smoothing);
    };
    return register_loss(loss).name;
  }();
  return name;
}
TrainConfig interrupted_config(Mode mode) {
  TrainConfig config = config_of(mode);
  config.loss = interrupting_loss();
  return config;
}

// Runs the hidden test below in a process of its own, which an interrupt stops in the middle of training.
void train_until_interrupted(Mode mode, Device device, const std::string& checkpoint) {
  const std::string command = fmt::format(
      "FASTNTK_TEST_CHECKPOINT='{}' FASTNTK_TEST_MODE={} FASTNTK_TEST_DEVICE={} '{}' '[interrupted-training]' > "
      "'{}.log' 2>&1",
      checkpoint, mode == Mode::train ? "train" : "eval", name_of(device),
      std::filesystem::read_symlink("/proc/self/exe").string(), checkpoint);
  INFO(command);
  REQUIRE(std::system(command.c_str()) == 0);
}

}  // namespace

TEST_CASE("training in a process that is interrupted", "[.][interrupted-training]") {
  const char* const checkpoint = std::getenv("FASTNTK_TEST_CHECKPOINT");
  const char *const mode = std::getenv("FASTNTK_TEST_MODE"), *const device = std::getenv("FASTNTK_TEST_DEVICE");
  REQUIRE(checkpoint != nullptr);
  REQUIRE(device != nullptr);
  REQUIRE(mode != nullptr);
  install_interrupt_handler();
  CHECK_THROWS_AS(run(interrupted_config(mode == std::string("train") ? Mode::train : Mode::eval), "all", checkpoint, 1,
                      parse_device(device)),
                  Interrupted);
  CHECK(std::filesystem::exists(checkpoint));
}

TEST_CASE("interrupted training continues to the same bits, and a checkpoint of another run is refused") {
  const Mode mode = GENERATE(Mode::train, Mode::eval);
  const Device device = GENERATE(Device::cpu, Device::emu);
  if (device == Device::emu && emu::under_tsan) return;  // a quarter of an hour
  const TemporaryFolder folder;
  const std::string checkpoint = folder / "run.safetensors", copy = folder / "copy.safetensors";
  train_until_interrupted(mode, device, checkpoint);
  REQUIRE(std::filesystem::exists(checkpoint));
  std::filesystem::copy_file(checkpoint, copy);
  const TrainConfig config = interrupted_config(mode);
  const Trained whole = run(config, "all", {}, 1, device), resumed = run(config, "all", checkpoint, 1, device);
  CHECK(resumed.contents == whole.contents);
  CHECK(resumed.epoch_loss == whole.epoch_loss);
  CHECK(resumed.steps == 9);
  // The state of the last step stays for whom the result is not yet on the disk.
  CHECK(run(config, "all", checkpoint, 1, device).contents == whole.contents);

  const auto refused = [&](const TrainConfig& other, const std::string& subset, uint64_t model_seed, Device where) {
    CHECK_THROWS_WITH(run(other, subset, copy, model_seed, where), Contains("checkpoint of another run"));
    CHECK(std::filesystem::exists(copy));
  };
  TrainConfig other = config;
  other.learning_rate *= 2;
  refused(other, "all", 1, device);
  refused(config, "bn", 1, device);
  other = config;
  other.network = "heads=3";
  refused(other, "all", 1, device);
  refused(config, "all", 2, device);  // another model at the start
  refused(config, "all", 1, device == Device::cpu ? Device::emu : Device::cpu);
  CHECK_THROWS_AS(run(config, "all", folder.write("broken.safetensors", "not a checkpoint")), Error);
}

TEST_CASE("training has the same bits for any number of threads") {
  const Mode mode = GENERATE(Mode::train, Mode::eval);
  const std::string subset = GENERATE(as<std::string>{}, "all", "bn+head");
  const int before = thread_count();
  TrainConfig config = config_of(mode);
  config.epochs = 1;
  config.batch_size = 20;  // more than two tiles of samples, and a batch of one sample
  set_thread_count(1);
  const Trained expected = run(config, subset);
  for (const int threads : {2, 3}) {
    set_thread_count(threads);
    const Trained other = run(config, subset);
    CHECK(other.contents == expected.contents);
    CHECK(other.epoch_loss == expected.epoch_loss);
  }
  set_thread_count(before);
}

TEST_CASE("only the subset is trained, and eval mode leaves the running statistics alone") {
  const Model model = small_resnet();
  const Subset tuned = choose(*model, "bn+head");
  std::set<std::string> names;
  for (const Subset::Entry& e : tuned.entries) names.insert(e.name);
  // Parameters outside of the subset, and all buffers.
  const auto frozen = [&] {
    std::vector<std::vector<double>> out;
    for (const auto& [name, p] : model->named_parameters())
      if (!names.contains(name)) out.push_back(p->value.to(DType::float64).to_vector<double>());
    CHECK(out.size() + tuned.entries.size() == model->named_parameters().size());
    for (const auto& [name, b] : model->named_buffers()) out.push_back(b->value.to(DType::float64).to_vector<double>());
    return out;
  };
  const auto at_start = frozen();
  const Tensor before = gather(*model, choose(*model, "bn+head"));
  Progress::set_quiet(true);
  const TrainResult r = train(*model, choose(*model, "bn+head"), samples(21), config_of(Mode::eval), "test");
  CHECK(r.epoch_loss.size() == 3);
  CHECK(r.steps == 9);
  CHECK(frozen() == at_start);
  CHECK(gather(*model, choose(*model, "bn+head")).to_vector<double>() != before.to_vector<double>());
}

TEST_CASE("a step follows the gradient of the regularised objective") {
  const std::string loss_name = GENERATE(as<std::string>{}, "ce", "mse");
  const int64_t n = 11;
  const Model model = small_resnet(DType::float64);
  const Subset subset = choose(*model, "bn1.*+layer3.2.bn2.*+head");
  const Samples data = samples(n, DType::float64);
  const Tensor theta0 = gather(*model, subset);
  const Loss& loss = find_loss(loss_name);
  TrainConfig config;
  config.loss = loss_name;
  config.mode = Mode::eval;
  config.optimiser.momentum = 0;
  config.batch_size = n;
  config.learning_rate = 0.1;
  config.epochs = 2;
  config.l2 = 0.7;
  Progress::set_quiet(true);
  config.stop_after_steps = 1;
  train(*model, subset, data, config, "test");
  const std::vector<double> first = gather(*model, subset).to_vector<double>();
  scatter(*model, subset, theta0);
  config.stop_after_steps = 0;
  train(*model, subset, data, config, "test");
  const std::vector<double> second = gather(*model, subset).to_vector<double>();

  // The second step, from a place where the L2 term counts, against central differences of the objective.
  const double rho = config.l2 * n, h = 1e-6;
  double squared = 0;
  for (size_t p = 0; p < first.size(); p++) {
    const auto at = [&](double step) {
      std::vector<double> theta = first;
      theta[p] += step;
      scatter(*model, subset, Tensor::from<double>({subset.size()}, theta));
      return objective(*model, subset, data, loss, rho, theta0).value();
    };
    const double slope = (at(h) - at(-h)) / (2 * h);
    squared += slope * slope;
    CHECK((first[p] - second[p]) / config.learning_rate == Approx(slope / n).epsilon(1e-5).margin(1e-7));
  }
  scatter(*model, subset, Tensor::from<double>({subset.size()}, first));
  const Objective o = objective(*model, subset, data, loss, rho, theta0);
  CHECK(o.gradient_norm == Approx(std::sqrt(squared)).epsilon(1e-5));
  double away = 0;
  for (size_t p = 0; p < first.size(); p++) away += std::pow(first[p] - theta0.to_vector<double>()[p], 2);
  CHECK(o.penalty == Approx(0.5 * rho * away));
}

TEST_CASE("an objective that overflows is told, not refused") {
  Model model = small_resnet();
  const Subset head = choose(*model, "head");
  const Tensor theta = gather(*model, head);
  Tensor far = theta.clone();
  far.fill(1e38);
  scatter(*model, head, far);
  CHECK_FALSE(std::isfinite(objective(*model, head, samples(9), find_loss("mse"), 1, theta).value()));
}

TEST_CASE("a loss that is not finite is an error that names the op") {
  const Model model = small_resnet();
  Tensor gamma = model->named_parameters()[choose(*model, "layer2.1.bn1.weight").entries[0].index].second->value;
  gamma.slice(0, 1, 2).fill(std::nan(""));
  const auto message = [&](const std::string& subset) {
    try {
      train(*model, choose(*model, subset), samples(9), config_of(Mode::eval), "test");
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK_THAT(message("bn"), Contains("batch_norm") && Contains("not finite"));
  CHECK_THAT(message("head"), Contains("not finite"));
}

TEST_CASE("training of no epochs changes nothing") {
  const Model model = small_resnet();
  const Subset subset = choose(*model, "bn");
  const Tensor before = gather(*model, subset);
  TrainConfig config = config_of(Mode::eval);
  config.epochs = 0;
  CHECK(train(*model, subset, samples(9), config, "test").steps == 0);
  CHECK(gather(*model, subset).to_vector<double>() == before.to_vector<double>());
}

TEST_CASE("training that recomputes its blocks gives the same bits from less memory") {
  for (const Mode mode : {Mode::train, Mode::eval}) {
    std::vector<std::vector<double>> weights;
    std::vector<size_t> peaks;
    for (const bool recompute : {false, true}) {
      const Model model = small_resnet();
      TrainConfig config = config_of(mode);
      config.recompute = recompute;
      reset_peak_memory();
      const size_t before = memory_statistics().peak;
      train(*model, choose(*model, "all"), samples(32), config, "test");
      peaks.push_back(memory_statistics().peak - before);
      weights.push_back(gather(*model, choose(*model, "all")).to_vector<double>());
      for (const auto& [name, buffer] : model->named_buffers())
        for (const double v : buffer->value.to(DType::float64).to_vector<double>()) weights.back().push_back(v);
    }
    CHECK(weights[0] == weights[1]);
    CHECK(peaks[1] < 0.9 * static_cast<double>(peaks[0]));
  }
}

TEST_CASE("training refuses what cannot be meant") {
  Progress::set_quiet(true);
  const Model model = small_resnet();
  const Subset subset = choose(*model, "bn");
  const auto attempt = [&](auto&& change, int64_t n = 9) {
    TrainConfig config = config_of(Mode::eval);
    change(config);
    train(*model, subset, samples(n), config, "test");
  };
  CHECK_THROWS_AS(attempt([](TrainConfig& c) { c.epochs = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](TrainConfig& c) { c.batch_size = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](TrainConfig& c) { c.learning_rate = std::nan(""); }), UsageError);
  CHECK_THROWS_AS(attempt([](TrainConfig& c) { c.learning_rate = 0; }), UsageError);
  CHECK_THROWS_AS(attempt([](TrainConfig& c) { c.l2 = -1; }), UsageError);
  CHECK_THROWS_AS(attempt([](TrainConfig& c) { c.schedule = {"step"}; }), UsageError);
  CHECK_THROWS_AS(attempt([](TrainConfig& c) { c.loss = "hinge"; }), UsageError);
  CHECK_THROWS_WITH(attempt([](TrainConfig&) {}, 0), Contains("no samples to train on"));
}
