#include "unlearn/jacobian.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "engine/blas.h"
#include "engine/cpu/dispatch.h"
#include "engine/device.h"
#include "engine/ops/convolution.h"
#include "engine/parallel.h"
#include "engine/precision.h"
#include "engine/progress.h"
#include "engine/recompute.h"
#include "training/gradient.h"

namespace fastntk {
namespace {

// Bytes of the largest layer's cotangents for a whole tile. A few samples, so that the weights of deep layers are read
// for several of them, as long as that is not much; more only where layers are small. Larger tiles are not faster and
// take more memory (bench/run.sh shows both).
constexpr double few_samples = 4, few_samples_bytes = 5.5 * (1 << 20), layer_bytes = 2.2 * (1 << 20);
constexpr int64_t largest_tile = 64;
constexpr int64_t derivative_tile = 4;
// The same of a device, which is to be filled by one tile.
constexpr double device_layer_bytes = 256.0 * (1 << 20);
constexpr int64_t device_largest_tile = 1024, device_derivative_tile = 256;
// Of a device's free memory, what the sweeps may use unless a budget is given.
constexpr double device_share = 0.8;

// A classifier at the end of a tape, f = W v + b with v the features of each sample, through which alone all that is
// not its own depends on the parameters.
struct LinearHead {
  Variable features;                     // a placeholder for v, [N, w], of no value
  Tensor weight;                         // W [C, w]
  Tensor inputs;                         // v [N, w]; undefined unless W is a leaf
  int weight_leaf = -1, bias_leaf = -1;  // among the leaves of the pass, or -1
};

// What the tape ends in, if that is such a classifier (Linear::forward records these four).
std::optional<LinearHead> linear_head(Tape& tape, const Variable& f, std::span<const Variable> leaves) {
  const auto& records = tape.records();
  if (records.size() < 4 || f.value.device() != Device::cpu) return std::nullopt;
  const Record* const tail = &records[records.size() - 4];
  const char* const names[] = {"reshape", "linear", "reshape", "add"};
  for (int k = 0; k < 4; k++)
    if (tail[k].op->name() != names[k] || (k > 0 && tail[k].inputs[0] != tail[k - 1].output)) return std::nullopt;
  if (tail[3].output != f.slot || tail[0].input_shapes[0].rank() != 2 || tail[0].inputs[0] < 0) return std::nullopt;
  const Variable& weight = tail[1].saved_inputs[1];
  // One W for all samples.
  if (!weight.defined() || (weight.extent(0) > 1 && weight.value.strides()[0] != 0)) return std::nullopt;
  LinearHead head;
  const auto position = [&](int slot) {
    for (size_t i = 0; i < leaves.size(); i++)
      if (leaves[i].slot == slot) return static_cast<int>(i);
    return -1;
  };
  head.weight_leaf = position(tail[1].inputs[1]), head.bias_leaf = position(tail[3].inputs[1]);
  // Weights that are computed from other variables are no leaves: what they depend on does not go through v.
  if ((head.weight_leaf < 0 && tail[1].inputs[1] >= 0) || (head.bias_leaf < 0 && tail[3].inputs[1] >= 0))
    return std::nullopt;
  const Shape& shape = tail[0].input_shapes[0];
  head.features = Variable(Tensor::zeros({1, 1}, f.dtype()).expand(shape), &tape, tail[0].inputs[0]);
  head.weight = weight.value.select(0, 0).contiguous();
  if (head.weight_leaf >= 0) head.inputs = tail[1].saved_inputs[0].value.contiguous().reshape(shape);
  return head;
}

// [K, count, C] with row k asking for class from + k of every sample.
Tensor class_cotangents(int64_t from, int64_t to, int64_t count, const Tensor& logits) {
  Tensor seed = Tensor::zeros({to - from, count, logits.extent(-1)}, logits.dtype(), logits.device());
  for (int64_t c = from; c < to; c++) seed.select(0, c - from).slice(1, c, c + 1).fill(1);
  return seed;
}

// Leaf cotangents [K, count, …] of classes from … from + K go to rows [count, C, P].
void store(const Variable& cotangent, const Subset::Entry& entry, int64_t from, Tensor& rows) {
  const int64_t C = rows.extent(1), P = rows.extent(2), length = entry.shape.elements();
  if (!cotangent.defined()) {
    rows.slice(2, entry.offset, entry.offset + length).fill(0);
    return;
  }
  const Tensor g = cotangent.value.contiguous();
  const int64_t K = g.extent(0), count = g.extent(1);
  if (g.device() != Device::cpu) {
    rows.slice(1, from, from + K)
        .slice(2, entry.offset, entry.offset + length)
        .copy_from(g.reshape({K, count, length}).transpose(0, 1));
    return;
  }
  for_floating(g.dtype(), "a Jacobian", [&](auto zero) {
    using T = decltype(zero);
    const T* const source = g.data<T>();
    T* const out = rows.mutable_data<T>() + entry.offset;
    for (int64_t k = 0; k < K; k++)
      for (int64_t n = 0; n < count; n++)
        std::memcpy(out + (n * C + from + k) * P, source + (k * count + n) * length,
                    static_cast<size_t>(length) * sizeof(T));
  });
}

void check_inputs(const Module& model, const Subset& subset, const Tensor& inputs) {
  require(inputs.rank() >= 2 && inputs.extent(0) > 0, "a Jacobian needs inputs [n, …] with n > 0, got {}",
          inputs.shape().str());
  require(inputs.dtype() == model.dtype(), "the inputs are {}, the model is {}", name_of(inputs.dtype()),
          name_of(model.dtype()));
  require(subset.size() > 0, "a Jacobian in no parameters");
}

// Of one sample's tape.
struct Sizes {
  int64_t outputs = 0, rows = 0, largest = 0;  // logits; cotangents of a sweep; elements of the largest value
  double saved = 0;                            // bytes, with those of a block that runs again
};

Pass make_pass(const Module& model, const Subset& subset, const JacobianOptions& options, Tape& tape, int64_t first,
               int64_t count) {
  return options.pass ? options.pass(tape, first, count) : Pass::per_sample(model, subset, tape, count);
}

Sizes sizes_of(const Module& model, const Subset& subset, const Tensor& sample, const JacobianOptions& options,
               bool recompute) {
  Tape tape;
  Pass pass = make_pass(model, subset, options, tape, 0, 1);
  pass.set_recompute(recompute);
  const Variable f = model.forward(pass, sample);
  require(f.rank() == 2, "a Jacobian needs logits [N, C], the model gives {}", f.shape().str());
  Sizes sizes{.outputs = f.extent(1),
              .rows = f.extent(1),
              .saved = static_cast<double>(tape.saved_bytes() + recomputed_bytes(tape))};
  if (const auto head = linear_head(tape, f, pass.leaves().first(subset.entries.size())))
    sizes.rows = std::min(sizes.rows, head->features.extent(1));
  for (const Record& r : tape.records()) sizes.largest = std::max(sizes.largest, r.output_shape.elements());
  return sizes;
}

// Rows [count, outputs, P] of an output [count, outputs], by sweeps of `stack` cotangents.
void sweep(Tape& tape, const Variable& output, std::span<const Variable> leaves, const Subset& subset, int64_t stack,
           Tensor& rows) {
  const int64_t count = output.extent(0), outputs = output.extent(1);
  for (int64_t from = 0; from < outputs; from += stack) {
    const int64_t to = std::min(outputs, from + stack);
    const auto cotangents = tape.vjp(output, class_cotangents(from, to, count, output.value), leaves);
    for (size_t k = 0; k < cotangents.size(); k++) store(cotangents[k], subset.entries[k], from, rows);
  }
}

// The same of logits f = W v + b with fewer features than logits: rows of v, multiplied by W, and those of W and b.
void head_rows(Tape& tape, const Variable& f, std::span<const Variable> leaves, const Subset& subset,
               const JacobianPlan& plan, Tensor& rows) {
  const auto head = linear_head(tape, f, leaves);
  require(head && head->features.extent(1) == plan.rows, "the classifier of a batch is not that of its first sample");
  const int64_t count = f.extent(0), C = f.extent(1), w = plan.rows, P = subset.size();
  Tensor of_features({count, w, P}, f.dtype());
  sweep(tape, head->features, leaves, subset, plan.classes, of_features);
  for_floating(f.dtype(), "a Jacobian", [&](auto zero) {
    using T = decltype(zero);
    const T* const weight = head->weight.data<T>();
    T* const out = rows.mutable_data<T>();
    for (int64_t n = 0; n < count; n++) {
      blas::gemm('N', 'N', static_cast<int>(P), static_cast<int>(C), static_cast<int>(w), T{1},
                 of_features.data<T>() + n * w * P, static_cast<int>(P), weight, static_cast<int>(w), T{0},
                 out + n * C * P, static_cast<int>(P));
      for (int64_t c = 0; c < C; c++) {
        T* const row = out + (n * C + c) * P;
        if (head->weight_leaf >= 0)
          std::copy_n(head->inputs.data<T>() + n * w, w,
                      row + subset.entries[static_cast<size_t>(head->weight_leaf)].offset + c * w);
        if (head->bias_leaf >= 0) row[subset.entries[static_cast<size_t>(head->bias_leaf)].offset + c] = 1;
      }
    }
  });
}

// Bytes of a part of the sweeps at its widest point: what the tape saves; the cotangents of a block's input, its
// output, a residual and the one being made; the leaves' cotangents; the rows handed out.
class SweepBytes {
 public:
  SweepBytes(const Sizes& sizes, const Subset& subset, DType dtype)
      : saved_(sizes.saved),
        layer_(static_cast<double>(sizes.largest) * static_cast<double>(size_of(dtype))),
        row_(static_cast<double>(subset.size()) * static_cast<double>(size_of(dtype))),
        rows_(static_cast<double>(sizes.outputs + (sizes.rows < sizes.outputs ? sizes.rows : 0))) {}
  double layer() const { return layer_; }
  double operator()(int64_t tile, int64_t classes) const {
    return static_cast<double>(tile) * (saved_ + static_cast<double>(classes) * (4 * layer_ + row_) + rows_ * row_);
  }

 private:
  double saved_, layer_, row_, rows_;
};

// What the options do not leave to the plan: samples and cotangents of the smallest sweep.
struct Smallest {
  int64_t tile, classes;
};
Smallest smallest_sweep(const JacobianOptions& options, int64_t samples, int64_t rows) {
  return {options.tile ? std::min(options.tile, samples) : 1, options.classes ? std::min(options.classes, rows) : 1};
}

}  // namespace

JacobianPlan plan_jacobian(const Module& model, const Subset& subset, const Tensor& inputs,
                           const JacobianOptions& options) {
  check_inputs(model, subset, inputs);
  const Device device = model.device();
  // One sample through the model says how large its layers are.
  const Tensor sample = inputs.slice(0, 0, 1).to(device);
  const Sizes plain = sizes_of(model, subset, sample, options, false);
  SweepBytes bytes(plain, subset, inputs.dtype());

  JacobianPlan plan;
  plan.outputs = plain.outputs, plan.rows = plain.rows;
  const Smallest least = smallest_sweep(options, inputs.extent(0), plan.rows);
  auto memory = static_cast<double>(options.memory);
  if (memory == 0 && device != Device::cpu)
    memory = device_share * static_cast<double>(device_memory(device).free_bytes());
  const double budget = memory / parts_at_once(device);
  plan.recompute = options.recompute == Recompute::always || (options.recompute == Recompute::automatic && budget > 0 &&
                                                              bytes(least.tile, least.classes) > budget);
  if (plan.recompute) bytes = SweepBytes(sizes_of(model, subset, sample, options, true), subset, inputs.dtype());
  plan.classes = options.classes ? std::min(options.classes, plan.rows) : std::min<int64_t>(plan.rows, 16);
  if (budget > 0 && !options.classes)
    while (plan.classes > 1 && bytes(least.tile, plan.classes) > budget) plan.classes = (plan.classes + 1) / 2;
  const double stack_bytes = bytes.layer() * static_cast<double>(plan.classes);
  const double samples = device == Device::cpu ? std::max(std::min(few_samples, few_samples_bytes / stack_bytes),
                                                          layer_bytes / stack_bytes)
                                               : device_layer_bytes / stack_bytes;
  plan.tile = options.tile ? options.tile
                           : std::clamp<int64_t>(static_cast<int64_t>(samples), 1,
                                                 device == Device::cpu ? largest_tile : device_largest_tile);
  if (budget > 0 && !options.tile)
    while (plan.tile > 1 && bytes(plan.tile, plan.classes) > budget) plan.tile /= 2;
  plan.tile = std::min(plan.tile, inputs.extent(0));
  plan.bytes_per_thread = static_cast<size_t>(bytes(plan.tile, plan.classes));
  // A tile or a number of classes that was asked for is kept.
  if (budget > 0 && bytes(plan.tile, plan.classes) > budget) {
    const size_t smallest = least_jacobian_memory(model, subset, inputs, options);
    throw UsageError(
        fmt::format("a Jacobian of this model does not fit into {} {}; the smallest budget that does is {} bytes ({})",
                    format_bytes(memory),
                    device == Device::cpu ? fmt::format("on {} threads", thread_count())
                                          : fmt::format("of the device {}", name_of(device)),
                    smallest, format_bytes(static_cast<double>(smallest))));
  }
  return plan;
}

size_t least_jacobian_memory(const Module& model, const Subset& subset, const Tensor& inputs,
                             const JacobianOptions& options) {
  check_inputs(model, subset, inputs);
  const Tensor sample = inputs.slice(0, 0, 1).to(model.device());
  const auto of = [&](bool recompute) {
    const Sizes sizes = sizes_of(model, subset, sample, options, recompute);
    const Smallest least = smallest_sweep(options, inputs.extent(0), sizes.rows);
    return SweepBytes(sizes, subset, inputs.dtype())(least.tile, least.classes);
  };
  const double bytes = options.recompute == Recompute::never    ? of(false)
                       : options.recompute == Recompute::always ? of(true)
                                                                : std::min(of(false), of(true));
  return static_cast<size_t>(std::ceil(bytes * parts_at_once(model.device())));
}

namespace {

void run_sweeps(const JacobianPlan& plan, const Module& model, const Subset& subset, const Tensor& inputs,
                const JacobianOptions& options, const RowSink& sink) {
  const Device device = model.device();
  const int64_t n = inputs.extent(0), tiles = (n + plan.tile - 1) / plan.tile, C = plan.outputs;
  std::optional<Progress> progress;
  if (!options.title.empty()) progress.emplace(options.title, n, "samples");
  for_parts(device, tiles, [&](int64_t i) {
    check_interrupt();
    const int64_t first = i * plan.tile, count = std::min(plan.tile, n - first);
    Tensor rows({count, C, subset.size()}, inputs.dtype(), device);
    Tensor logits;
    {
      Tape tape;
      Pass pass = make_pass(model, subset, options, tape, first, count);
      pass.set_recompute(plan.recompute);
      const Variable f = model.forward(pass, inputs.slice(0, first, first + count).to(device));
      logits = f.value;
      if (f.active()) {
        const auto leaves = pass.leaves().first(subset.entries.size());
        if (plan.rows < C)
          head_rows(tape, f, leaves, subset, plan, rows);
        else
          sweep(tape, f, leaves, subset, plan.classes, rows);
      } else {
        rows.fill(0);
      }
    }
    sink(first, logits, rows);
    if (progress) progress->advance(count);
  });
}

}  // namespace

void jacobian_rows(const Module& model, const Subset& subset, const Tensor& inputs, const JacobianOptions& options,
                   const RowSink& sink) {
  run_sweeps(plan_jacobian(model, subset, inputs, options), model, subset, inputs, options, sink);
}

std::string row_arithmetic(Device device) {
  return fmt::format(
      "convolutions {}, linear layers {}{}", convolution_algorithm() == ConvolutionAlgorithm::exact ? "exact" : "fast",
      name_of(linear_precision()), device == Device::cpu ? "" : fmt::format(", by the device {}", name_of(device)));
}

std::string row_bits(Device device) {
  return fmt::format("fastntk {} {} {} {} {}", FASTNTK_VERSION, cpu::name_of(cpu::isa()), blas_kernel_set(),
                     row_arithmetic(device), model_of(device));
}

Jacobian jacobian(const Module& model, const Subset& subset, const Tensor& inputs, const JacobianOptions& options) {
  const JacobianPlan plan = plan_jacobian(model, subset, inputs, options);
  const int64_t n = inputs.extent(0), C = plan.outputs;
  Jacobian out{Tensor({n, C}, inputs.dtype(), inputs.device()),
               Tensor({n, C, subset.size()}, inputs.dtype(), inputs.device())};
  run_sweeps(plan, model, subset, inputs, options, [&](int64_t first, const Tensor& logits, const Tensor& rows) {
    out.logits.slice(0, first, first + logits.extent(0)).copy_from(logits.to(inputs.device()));
    out.rows.slice(0, first, first + rows.extent(0)).copy_from(rows.to(inputs.device()));
  });
  return out;
}

DirectionalDerivative directional_derivative(const Module& model, const Subset& subset, const Tensor& inputs,
                                             const Tensor& v) {
  check_inputs(model, subset, inputs);
  require(v.shape() == Shape{subset.size()}, "a direction of {} parameters, got {}", subset.size(), v.shape().str());
  const Device device = model.device();
  const Tensor direction = v.to(inputs.dtype()).to(device);
  const int64_t tile = device == Device::cpu ? derivative_tile : device_derivative_tile;
  const int64_t n = inputs.extent(0), tiles = (n + tile - 1) / tile;
  std::vector<Tensor> logits(static_cast<size_t>(tiles)), derivatives(static_cast<size_t>(tiles));
  for_parts(device, tiles, [&](int64_t i) {
    Tape tape;
    const Pass pass = Pass::shared(model, subset, tape);
    const Variable f = model.forward(pass, inputs.slice(0, i * tile, std::min(n, (i + 1) * tile)).to(device));
    std::vector<std::pair<Variable, Variable>> tangents;
    for (size_t k = 0; k < subset.entries.size(); k++) {
      const auto& e = subset.entries[k];
      tangents.emplace_back(
          pass.leaves()[k],
          direction.slice(0, e.offset, e.offset + e.shape.elements()).reshape(pass.leaves()[k].shape()));
    }
    const Variable d = f.active() ? tape.jvp(tangents, f) : Variable{};
    logits[static_cast<size_t>(i)] = f.value.to(inputs.device());
    derivatives[static_cast<size_t>(i)] =
        d.defined() ? d.value.to(inputs.device()) : Tensor::zeros(f.shape(), f.dtype(), inputs.device());
  });
  return {stack_rows(logits), stack_rows(derivatives)};
}

}  // namespace fastntk
