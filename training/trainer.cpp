#include "training/trainer.h"

#include <cmath>

#include "engine/backend.h"
#include "engine/device.h"
#include "engine/ops/convolution.h"
#include "engine/parse_number.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "engine/safetensors.h"
#include "engine/sha256.h"
#include "training/loss.h"

namespace fastntk {
namespace {

constexpr double checkpoint_interval = 10;  // seconds
constexpr uint64_t order_stream = 1, augmentation_stream = 2, layer_stream = 3;

std::string number(double x) { return fmt::format("{:.17g}", x); }

// All that a run depends on; a checkpoint of another run is refused by it. The model is as it is before the first step.
std::string fingerprint(const Module& model, const Subset& subset, const Samples& samples, const TrainConfig& config) {
  Sha256 hash;
  for (const auto& [key, value] : config.settings()) hash.add(key + "=" + value + ";");
  for (const auto& entry : subset.entries) hash.add(entry.name + entry.shape.str());
  const auto add_tensor = [&](const std::string& name, const Tensor& value) {
    hash.add(name + "=" + value.describe() + ";");
    hash.add(bytes_of(value.to(Device::cpu).contiguous()));
  };
  for (const auto& [name, p] : model.named_parameters()) add_tensor(name, p->value);
  for (const auto& [name, b] : model.named_buffers()) add_tensor(name, b->value);
  hash.add(fmt::format("network={};convolutions={};precision={};device={} {};", config.network,
                       convolution_algorithm() == ConvolutionAlgorithm::exact ? "exact" : "fast",
                       name_of(linear_precision()), name_of(model.device()), model_of(model.device())));
  hash.add(bytes_of(samples.inputs.contiguous()));
  hash.add(bytes_of(samples.labels.contiguous()));
  return hash.hex();
}

// Everything that changes while training.
struct State {
  Module& model;
  Optimiser& optimiser;
  Tensor& theta0;
  std::vector<double>& epoch_loss;
  int64_t& step;

  std::vector<std::pair<std::string, Tensor>> tensors() const {
    std::vector<std::pair<std::string, Tensor>> all;
    for (const auto& [name, p] : model.named_parameters()) all.emplace_back("parameter." + name, p->value);
    for (const auto& [name, b] : model.named_buffers()) all.emplace_back("buffer." + name, b->value);
    for (size_t i = 0; i < optimiser.state().size(); i++)
      all.emplace_back(fmt::format("optimiser.{}", i), optimiser.state()[i]);
    all.emplace_back("theta0", theta0);
    return all;
  }

  void save(const std::string& path, const std::string& run) const {
    SafeTensors file;
    file.metadata = {{"format", "fastntk training checkpoint"},
                     {"run", run},
                     {"step", std::to_string(step)},
                     {"optimiser_steps", std::to_string(optimiser.steps())}};
    for (const auto& [name, tensor] : tensors()) file.tensors.emplace_back(name, tensor.to(Device::cpu));
    file.tensors.emplace_back("epoch_loss",
                              Tensor::from<double>({static_cast<int64_t>(epoch_loss.size())}, epoch_loss));
    file.save(path);
  }

  void load(const std::string& path, const std::string& run) {
    const SafeTensors file = SafeTensors::load(path);
    const auto meta = [&](const char* key) {
      const auto it = file.metadata.find(key);
      require(it != file.metadata.end(), "{} is not a training checkpoint: its metadata have no '{}'", path, key);
      return it->second;
    };
    require(
        meta("run") == run,
        "{} is the checkpoint of another run (another start, other settings, data or subset); remove it to start anew",
        path);
    const auto find = [&](const std::string& name) -> const Tensor& {
      const Tensor* const t = file.find(name);
      require(t != nullptr, "{} has no tensor '{}'", path, name);
      return *t;
    };
    for (auto& [name, tensor] : tensors()) {
      const Tensor& saved = find(name);
      require(saved.shape() == tensor.shape() && saved.dtype() == tensor.dtype(), "{}: '{}' is {}, expected {}", path,
              name, saved.describe(), tensor.describe());
      tensor.copy_from(saved.to(tensor.device()));
    }
    const auto count = [&](const char* key) {
      const auto value = parse_number<int64_t>(meta(key));
      require(value && *value >= 0, "{}: '{}' in its metadata is no number of steps: {}", path, meta(key), key);
      return *value;
    };
    optimiser.restore(optimiser.state(), count("optimiser_steps"));
    epoch_loss = find("epoch_loss").to_vector<double>();
    step = count("step");
  }
};

std::vector<Tensor> tuned(Module& model, const Subset& subset) {
  const auto all = model.named_parameters();
  std::vector<Tensor> out;
  for (const auto& entry : subset.entries) out.push_back(all[entry.index].second->value);
  return out;
}

// The gradient of a step; an Error says of which.
template <class Gradient>
BatchGradient named_step(int64_t step, int64_t steps, Gradient&& gradient) {
  try {
    return gradient();
  } catch (const UsageError&) {
    throw;
  } catch (const Error& e) {
    fail("step {} of {}: {} (where training diverges, a smaller learning rate helps)", step + 1, steps, e.what());
  }
}

// gradient of the mean loss over the batch, plus λ (θ − θ0).
void regularise(std::vector<Tensor>& gradient, const std::vector<Tensor>& theta, const std::vector<Tensor>& theta0,
                double scale, double l2) {
  for (size_t k = 0; k < gradient.size(); k++) {
    const Backend& device = backend_of(theta[k]);
    const auto scaled = [&](const Tensor& x, double factor) {
      Tensor out(x.shape(), DType::float64, x.device());
      device.map(UnaryKind::scale, factor, x.to(DType::float64), out);
      return out;
    };
    Tensor g = scaled(gradient[k], scale);
    if (l2 > 0) {
      Tensor pull(theta[k].shape(), DType::float64, theta[k].device());
      device.map(BinaryKind::subtract, theta[k].to(DType::float64), theta0[k], pull);
      device.map(BinaryKind::add, g, scaled(pull, l2), g);
    }
    gradient[k] = g.to(gradient[k].dtype());
  }
}

}  // namespace

std::map<std::string, std::string> TrainConfig::settings() const {
  std::map<std::string, std::string> all = {{"loss", loss},
                                            {"label_smoothing", number(label_smoothing)},
                                            {"optimiser", optimiser.kind},
                                            {"momentum", number(optimiser.momentum)},
                                            {"nesterov", optimiser.nesterov ? "true" : "false"},
                                            {"beta1", number(optimiser.beta1)},
                                            {"beta2", number(optimiser.beta2)},
                                            {"epsilon", number(optimiser.epsilon)},
                                            {"weight_decay", number(optimiser.weight_decay)},
                                            {"learning_rate", number(learning_rate)},
                                            {"schedule", schedule.text},
                                            {"epochs", std::to_string(epochs)},
                                            {"batch_size", std::to_string(batch_size)},
                                            {"l2", number(l2)},
                                            {"mode", mode == Mode::train ? "train" : "eval"},
                                            {"flip", augmentation.flip ? "true" : "false"},
                                            {"crop", std::to_string(augmentation.crop)},
                                            {"seed", std::to_string(seed)}};
  if (stop_after_steps) all["stop_after_steps"] = std::to_string(stop_after_steps);
  return all;
}

TrainResult train(Module& model, const Subset& subset, const Samples& samples, const TrainConfig& config,
                  const std::string& title, const std::optional<std::string>& checkpoint) {
  const int64_t n = samples.size();
  require(n > 0, "{}: there are no samples to train on", title);
  require_usage(config.epochs >= 0, "the number of epochs must not be negative, got {}", config.epochs);
  require_usage(config.batch_size >= 1, "the batch size must be at least 1, got {}", config.batch_size);
  require_usage(config.stop_after_steps >= 0, "the number of steps to stop after must not be negative, got {}",
                config.stop_after_steps);
  require_usage(config.learning_rate > 0 && std::isfinite(config.learning_rate),
                "the learning rate must be positive, got {}", config.learning_rate);
  require_usage(config.l2 >= 0, "the factor of the L2 term must not be negative, got {}", config.l2);
  Schedule::parse(config.schedule.text);
  const Loss& loss = find_loss(config.loss);
  const int64_t batch_size = std::min(n, config.batch_size), batches = (n + batch_size - 1) / batch_size,
                steps = batches * config.epochs;
  const int64_t stop = config.stop_after_steps ? std::min(config.stop_after_steps, steps) : steps;

  std::vector<Tensor> theta = tuned(model, subset);
  Tensor theta0 = gather(model, subset);
  Optimiser optimiser(config.optimiser, theta);
  TrainResult result;
  const State state{model, optimiser, theta0, result.epoch_loss, result.steps};
  const std::string run = checkpoint ? fingerprint(model, subset, samples, config) : "";
  if (checkpoint && file_exists(*checkpoint)) State(state).load(*checkpoint, run);

  std::vector<Tensor> start;  // θ0 beside each parameter
  for (const Subset::Entry& e : subset.entries)
    start.push_back(theta0.slice(0, e.offset, e.offset + e.shape.elements()).reshape(e.shape).to(model.device()));

  const Stopwatch clock;
  double saved_at = 0;
  Progress progress(title, (stop - result.steps) * batch_size, "samples");
  const Random random(config.seed);
  std::vector<int64_t> order;
  for (; result.steps < stop; result.steps++) {
    const int64_t step = result.steps, epoch = step / batches, batch = step % batches;
    if (batch == 0 || order.empty())
      order = Random(random.stream(order_stream).bits(static_cast<uint64_t>(epoch))).permutation(n);
    const int64_t from = batch * batch_size, to = std::min(n, from + batch_size);
    const Samples part = select(samples, std::vector<int64_t>(order.begin() + from, order.begin() + to));
    const Tensor inputs = augment(part.inputs, config.augmentation, random.stream(augmentation_stream),
                                  static_cast<uint64_t>(step) * static_cast<uint64_t>(config.batch_size));
    BatchGradient g = named_step(step, steps, [&] {
      return batch_gradient(model, subset, config.mode, inputs, part.labels, loss, config.label_smoothing,
                            Random(random.stream(layer_stream).bits(static_cast<uint64_t>(step))), config.recompute);
    });
    regularise(g.gradient, theta, start, 1 / static_cast<double>(to - from), config.l2);
    optimiser.step(g.gradient, config.schedule.rate(config.learning_rate, step, steps));
    if (batch == 0) result.epoch_loss.push_back(0);
    result.epoch_loss.back() += g.loss / static_cast<double>(n);
    progress.advance(to - from, fmt::format("epoch {}/{}, loss {:.4f}", epoch + 1, config.epochs,
                                            g.loss / static_cast<double>(to - from)));
    if (checkpoint && (clock.seconds() - saved_at > checkpoint_interval || interrupt_requested())) {
      result.steps++;  // the step is done
      state.save(*checkpoint, run);
      result.steps--;
      saved_at = clock.seconds();
    }
    check_interrupt();
  }
  if (checkpoint) state.save(*checkpoint, run);
  result.seconds = clock.seconds();
  return result;
}

}  // namespace fastntk
