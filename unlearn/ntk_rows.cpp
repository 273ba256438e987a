#include "unlearn/ntk_rows.h"

#include <algorithm>
#include <map>

#include "engine/parallel.h"
#include "models/layers.h"

namespace fastntk {
namespace {

// What one pass of one sample tells about a linear layer.
struct Seen {
  int times = 0;
  Shape input;
};

std::map<const Parameter*, Seen> linear_layers_in_use(const Module& model, const Tensor& sample) {
  std::map<const Parameter*, Seen> seen;
  Pass pass;
  pass.watch_linear([&](const Parameter& weight, const Tensor& input) {
    Seen& s = seen[&weight];
    s.times++;
    s.input = input.shape();
  });
  model.forward(pass, sample);
  return seen;
}

void append(Subset& subset, size_t index, const std::string& name, const Shape& shape) {
  subset.entries.push_back({.index = index, .name = name, .shape = shape, .offset = subset.size()});
}

// Sweeps over samples [first, …) whose passes store the inputs of factored layers.
JacobianOptions sweeping(const Module& model, const RowLayout& layout, const JacobianOptions& options,
                         const Tensor& extra) {
  JacobianOptions out = options;
  if (layout.layers.empty()) return out;
  out.pass = [&model, &layout, extra](Tape& tape, int64_t first, int64_t count) {
    Pass pass = Pass::per_sample(model, layout.swept, tape, count);
    pass.watch_linear([&layout, extra, first, count](const Parameter& weight, const Tensor& input) {
      for (const FactoredLayer& layer : layout.layers)
        if (layer.parameter == &weight && extra.defined())
          extra.slice(0, first, first + count)
              .slice(1, layer.input, layer.input + layer.inputs)
              .copy_from(input.to(extra.device()));
    });
    return pass;
  };
  return out;
}

}  // namespace

RowLayout plan_rows(const Module& model, const Subset& subset, const Tensor& inputs, bool factored) {
  require(inputs.rank() >= 2 && inputs.extent(0) > 0, "rows of a kernel need inputs [n, …] with n > 0, got {}",
          inputs.shape().str());
  RowLayout out;
  out.swept.specification = subset.specification;
  const Tensor sample = inputs.slice(0, 0, 1).to(model.device());
  const Variable f = model.forward(Pass(), sample);
  require(f.rank() == 2, "a kernel needs logits [N, C], the model gives {}", f.shape().str());
  out.classes = f.extent(1);

  std::map<std::string, FactoredLayer> layers;  // by the weight's name
  std::map<std::string, std::pair<size_t, const Parameter*>> parameters;
  const auto named = model.named_parameters();
  for (size_t i = 0; i < named.size(); i++) parameters[named[i].first] = {i, named[i].second};
  if (factored) {
    const auto seen = linear_layers_in_use(model, sample);
    for (const auto& [name, module] : model.named_modules()) {
      if (!dynamic_cast<const Linear*>(module)) continue;
      const Parameter* const weight = parameters.at(name + ".weight").second;
      const auto use = seen.find(weight);
      if (use == seen.end() || use->second.times != 1 || use->second.input.rank() != 2) continue;
      layers[name + ".weight"] = {.weight = name + ".weight",
                                  .parameter = weight,
                                  .inputs = weight->value.extent(1),
                                  .outputs = weight->value.extent(0)};
    }
  }
  for (const Subset::Entry& e : subset.entries) {
    const auto found = layers.find(e.name);
    if (found == layers.end())
      append(out.swept, e.index, e.name, e.shape);
    else
      out.layers.push_back(found->second);
  }
  out.dense = out.swept.size();
  for (FactoredLayer& layer : out.layers) {
    const std::string bias = layer.weight.substr(0, layer.weight.rfind('.')) + ".bias";
    const auto there = std::find_if(out.swept.entries.begin(), out.swept.entries.end(),
                                    [&](const Subset::Entry& e) { return e.name == bias; });
    layer.gradient = there == out.swept.entries.end() ? out.swept.size() : there->offset;
    if (there == out.swept.entries.end())
      append(out.swept, parameters.at(bias).first, bias, parameters.at(bias).second->value.shape());
    layer.input = out.extra;
    out.extra += layer.inputs;
  }
  out.stored = out.swept.size();
  return out;
}

void compute_rows(const Module& model, const RowLayout& layout, const Tensor& inputs, int64_t first, int64_t last,
                  const JacobianOptions& options, NtkRows& out) {
  const Tensor rows = out.rows;
  jacobian_rows(model, layout.swept, inputs.slice(0, first, last), sweeping(model, layout, options, out.extra),
                [&](int64_t at, const Tensor&, const Tensor& part) {
                  Tensor to = rows.slice(0, at, at + part.extent(0));
                  to.copy_from(part.to(to.device()));
                });
}

size_t measured_sweep_bytes(const Module& model, const RowLayout& layout, const Tensor& inputs,
                            const JacobianOptions& options) {
  JacobianOptions quiet = options;
  quiet.title.clear();
  const int64_t tile = plan_sweeps(model, layout, inputs, quiet).tile;
  const Tensor sample = inputs.slice(0, 0, tile);
  quiet = sweeping(model, layout, quiet, layout.extra ? Tensor({tile, layout.extra}, inputs.dtype()) : Tensor());
  const auto sweep = [&] {
    jacobian_rows(model, layout.swept, sample, quiet, [](int64_t, const Tensor&, const Tensor&) {});
  };
  sweep();  // packs weights and transforms them, once for all sweeps
  const Device device = model.device();
  const size_t before = memory_statistics(device).live;
  reset_peak_memory(device);
  sweep();
  return memory_statistics(device).peak - before;
}

JacobianPlan plan_sweeps(const Module& model, const RowLayout& layout, const Tensor& inputs,
                         const JacobianOptions& options) {
  return plan_jacobian(model, layout.swept, inputs, sweeping(model, layout, options, {}));
}

double forward_flops(const Module& model, const Tensor& sample) {
  Tape tape;
  const Pass pass = Pass::shared(model, choose(model, "all"), tape);
  model.forward(pass, sample.to(model.device()));
  double flops = 0;
  for (const Record& r : tape.records()) {
    const auto elements = static_cast<double>(r.output_shape.elements());
    const std::string& op = r.op->name();
    if (op == "conv2d" || op == "linear") {
      const Shape& weight = r.input_shapes[1];  // [1, O, …]
      flops += 2 * elements * static_cast<double>(weight.elements()) / static_cast<double>(weight[0] * weight[1]);
    } else if (op == "matmul") {
      flops += 2 * elements * static_cast<double>(r.input_shapes[0][-1]);
    } else if (op == "attention") {
      flops += 4 * elements * static_cast<double>(r.input_shapes[1][-2]);
    }
  }
  return flops;
}

}  // namespace fastntk
