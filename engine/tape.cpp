#include "engine/tape.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <ostream>
#include <set>

#include "engine/backend.h"
#include "engine/device.h"
#include "engine/ops/elementwise.h"

namespace fastntk {
namespace {

struct OpTable {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<OpInfo>> ops;
};
OpTable& op_table() {
  static OpTable table;
  return table;
}

std::string shapes_of(const std::vector<Variable>& inputs) {
  std::string s;
  for (const auto& v : inputs)
    s += (s.empty() ? "" : ", ") + (v.defined() ? v.shape().str() : std::string("undefined"));
  return s;
}

std::string title(const Op& op) {
  const std::string attributes = op.attributes();
  return attributes.empty() ? op.name() : op.name() + "(" + attributes + ")";
}

}  // namespace

const OpInfo& register_op(OpInfo info) {
  auto& table = op_table();
  const std::lock_guard lock(table.mutex);
  auto& entry = table.ops[info.name];
  require(!entry, "an op named '{}' is registered already", info.name);
  entry = std::make_unique<OpInfo>(std::move(info));
  return *entry;
}

std::vector<const OpInfo*> registered_ops() {
  auto& table = op_table();
  const std::lock_guard lock(table.mutex);
  std::vector<const OpInfo*> all;
  for (const auto& [name, info] : table.ops) all.push_back(info.get());
  return all;
}

// ---- what an op sees of its record ----

Variable Linearisation::input(int i) const {
  const Variable& v = record_.saved_inputs.at(static_cast<size_t>(i));
  require(v.defined(), "{}: its linear map asked for input {}, which needs() did not declare", record_.op->name(), i);
  return differentiable_ ? v : v.constant();
}
Variable Linearisation::output() const {
  require(record_.saved_output.defined(), "{}: its linear map asked for the output, which needs() did not declare",
          record_.op->name());
  return differentiable_ ? record_.saved_output : record_.saved_output.constant();
}
const Tensor& Linearisation::extra(int i) const {
  require(i >= 0 && static_cast<size_t>(i) < record_.extras.size(),
          "{}: its linear map asked for extra {}, but forward saved {}", record_.op->name(), i, record_.extras.size());
  return record_.extras[static_cast<size_t>(i)];
}
const Shape& Linearisation::input_shape(int i) const { return record_.input_shapes.at(static_cast<size_t>(i)); }
const Shape& Linearisation::output_shape() const { return record_.output_shape; }
int Linearisation::inputs() const { return static_cast<int>(record_.inputs.size()); }
bool Linearisation::active(int i) const { return (record_.active >> i & 1U) != 0; }

// ---- recording ----

Variable apply(std::shared_ptr<const Op> op, std::vector<Variable> inputs) {
  std::vector<Shape> shapes;
  std::vector<Tensor> values;
  Tape* tape = nullptr;
  ActiveSet active = 0;
  require(inputs.size() <= 32, "{}: at most 32 inputs, got {}", op->name(), inputs.size());
  for (size_t i = 0; i < inputs.size(); i++) {
    const Variable& v = inputs[i];
    require(v.defined(), "{}: input {} is undefined (inputs: {})", op->name(), i, shapes_of(inputs));
    require(v.value.device() == inputs[0].value.device(), "{}: its inputs are in the memory of {} and of {}",
            op->name(), name_of(inputs[0].value.device()), name_of(v.value.device()));
    shapes.push_back(v.shape());
    values.push_back(v.value);
    if (!v.active()) continue;
    require(!tape || tape == v.tape, "{}: its inputs are on different tapes", op->name());
    require(is_floating(v.dtype()), "{}: input {} is {}, which has no derivative", op->name(), i, name_of(v.dtype()));
    tape = v.tape;
    active |= 1U << i;
  }
  if (op->info().host_only)
    for (const Tensor& t : values)
      require(t.device() == Device::cpu, "{} runs on the CPU only, but an input is in the memory of {}", op->name(),
              name_of(t.device()));
  const Shape shape = op->shape(shapes);
  if (tape && tape->samples_)
    require(!op->mixes_samples(shapes), "{} on {} mixes samples, so per-sample derivatives through it do not exist",
            title(*op), shapes_of(inputs));

  std::vector<Tensor> extras;
  Tensor output = op->forward(values, active, extras);
  require(output.shape() == shape, "{}: forward returned {}, its shape rule says {}", op->name(), output.shape().str(),
          shape.str());
  if (!tape) return {output};

  Record record;
  record.active = active;
  record.output = tape->new_slot();
  record.output_shape = shape;
  record.dtype = output.dtype();
  record.extras = std::move(extras);
  const Needs needs = op->needs(active);
  record.saved_inputs.resize(inputs.size());
  for (size_t i = 0; i < inputs.size(); i++) {
    record.inputs.push_back(inputs[i].active() ? inputs[i].slot : -1);
    if (needs.inputs >> i & 1U) record.saved_inputs[i] = inputs[i];
  }
  Variable result(output, tape, record.output);
  if (needs.output) record.saved_output = result;
  record.input_shapes = std::move(shapes);
  record.op = std::move(op);
  tape->records_.push_back(std::move(record));
  if (tape->options_.trace_non_finite) tape->check_finite(output, "output", tape->records_.size() - 1);
  return result;
}

Variable Tape::leaf(const Tensor& value, std::string name) {
  require(value.defined() && is_floating(value.dtype()), "a leaf must be float32 or float64, got {}",
          value.defined() ? value.describe() : "an undefined tensor");
  const int slot = new_slot();
  leaves_.emplace_back(slot, std::move(name));
  return {value, this, slot};
}

Variable Tape::per_sample_leaf(const Tensor& parameter, int64_t samples, std::string name) {
  require(parameter.rank() >= 1 && parameter.extent(0) == 1,
          "a per-sample leaf starts from a parameter of shape [1, …], got {}", parameter.shape().str());
  require(samples > 0 && (samples_ == 0 || samples_ == samples), "this tape has leaves of {} samples, got one of {}",
          samples_, samples);
  samples_ = samples;
  Shape expanded = parameter.shape();
  expanded[0] = samples;
  return leaf(parameter.expand(expanded), std::move(name));
}

void Tape::check_ours(const Variable& v, const char* what) const {
  require(v.tape == this, "{} is not a variable of this tape", what);
}

void Tape::check_finite(const Tensor& value, const char* what, size_t index) const {
  const int64_t at = backend_of(value).first_non_finite(value);
  if (at < 0) return;
  const Record& r = records_[index];
  std::string inputs;
  for (const Shape& s : r.input_shapes) inputs += (inputs.empty() ? "" : ", ") + s.str();
  fail("record {} of the tape, {} on {}, made the first value that is not finite: element {} of its {} {}", index,
       title(*r.op), inputs, at, what, value.shape().str());
}

// ---- applying the linear map ----

std::vector<Variable> Tape::jvp(std::span<const std::pair<Variable, Variable>> leaf_tangents,
                                std::span<const Variable> outputs) {
  std::vector<Variable> tangents(static_cast<size_t>(slots_));
  for (const auto& [leaf, tangent] : leaf_tangents) {
    check_ours(leaf, "the leaf given to jvp");
    require(tangent.rank() >= leaf.rank() && tangent.shape().trailing(leaf.rank()) == leaf.shape(),
            "jvp: a tangent of the leaf {} must have its shape, perhaps after extra leading axes; got {}",
            leaf.shape().str(), tangent.shape().str());
    // Of this tape it is a constant: applying the map must not add records to those that are walked.
    tangents[static_cast<size_t>(leaf.slot)] = tangent.tape == this ? tangent.constant() : tangent;
  }
  for (size_t k = 0; k < records_.size(); k++) {
    const Record& r = records_[k];
    std::vector<Variable> in(r.inputs.size());
    bool any = false;
    for (size_t i = 0; i < in.size(); i++) {
      if (r.inputs[i] < 0) continue;
      in[i] = tangents[static_cast<size_t>(r.inputs[i])];
      any |= in[i].defined();
    }
    if (!any) continue;
    Variable out = r.op->jvp(Linearisation(r, false), in);
    if (options_.trace_non_finite && out.defined()) check_finite(out.value, "tangent", k);
    tangents[static_cast<size_t>(r.output)] = std::move(out);
  }
  std::vector<Variable> result;
  for (const Variable& v : outputs) {
    check_ours(v, "the output given to jvp");
    result.push_back(tangents[static_cast<size_t>(v.slot)]);
  }
  return result;
}

Variable Tape::jvp(std::span<const std::pair<Variable, Variable>> leaf_tangents, const Variable& output) {
  return jvp(leaf_tangents, std::span(&output, 1))[0];
}

std::vector<Variable> Tape::vjp(const Variable& output, const Variable& cotangent, std::span<const Variable> leaves,
                                bool differentiable) {
  check_ours(output, "the output given to vjp");
  require(cotangent.rank() >= output.rank() && cotangent.shape().trailing(output.rank()) == output.shape(),
          "vjp: a cotangent of the output {} must have its shape, perhaps after extra leading axes; got {}",
          output.shape().str(), cotangent.shape().str());
  std::vector<Variable> cotangents(static_cast<size_t>(slots_));
  std::vector<Variable> kept(static_cast<size_t>(slots_));  // leaves and whatever else was asked for
  std::vector<char> wanted(static_cast<size_t>(slots_), 0);
  int earliest = slots_;  // of what was asked for; nothing before it matters
  for (const Variable& v : leaves) {
    check_ours(v, "the leaf given to vjp");
    wanted[static_cast<size_t>(v.slot)] = 1;
    earliest = std::min(earliest, v.slot);
  }
  cotangents[static_cast<size_t>(output.slot)] =
      cotangent.tape == this && !differentiable ? cotangent.constant() : cotangent;
  for (size_t k = records_.size(); k-- > 0 && records_[k].output > earliest;) {
    // By value of the record's index: a differentiable application appends to records_ while it runs.
    const size_t slot = static_cast<size_t>(records_[k].output);
    Variable c = std::move(cotangents[slot]);
    cotangents[slot] = {};
    if (!c.defined()) continue;
    if (wanted[slot]) kept[slot] = c;
    const Record r = differentiable ? records_[k] : Record{};
    const Record& record = differentiable ? r : records_[k];
    if (differentiable)
      require(!record.op->first_order_only(), "{} has no second derivative here: its vjp is a kernel of its own",
              title(*record.op));
    std::vector<Variable> in = record.op->vjp(Linearisation(record, differentiable), c);
    c = {};
    require(in.size() == record.inputs.size(), "{}: vjp returned {} cotangents for {} inputs", record.op->name(),
            in.size(), record.inputs.size());
    for (size_t i = 0; i < in.size(); i++) {
      if (record.inputs[i] < 0 || !in[i].defined()) continue;
      if (options_.trace_non_finite) check_finite(in[i].value, "cotangent", k);
      Variable& sum = cotangents[static_cast<size_t>(record.inputs[i])];
      sum = sum.defined() ? add(sum, in[i]) : std::move(in[i]);
    }
  }
  std::vector<Variable> result;
  for (const Variable& v : leaves) {
    const size_t slot = static_cast<size_t>(v.slot);
    result.push_back(cotangents[slot].defined() ? cotangents[slot] : kept[slot]);
  }
  return result;
}

// ---- looking at a tape ----

size_t Tape::saved_bytes() const {
  std::set<const Storage*> seen;
  size_t bytes = 0;
  const auto count = [&](const Tensor& t) {
    if (t.defined() && seen.insert(t.storage().get()).second) bytes += t.storage()->bytes();
  };
  for (const Record& r : records_) {
    for (const Variable& v : r.saved_inputs) count(v.value);
    count(r.saved_output.value);
    for (const Tensor& t : r.extras) count(t);
  }
  return bytes;
}

std::string Tape::str() const {
  std::map<int, std::string> names;
  for (const auto& [slot, name] : leaves_) names[slot] = name.empty() ? "leaf" + std::to_string(slot) : name;
  for (size_t k = 0; k < records_.size(); k++) names[records_[k].output] = "#" + std::to_string(k);
  std::string out = fmt::format("{:>5}  {:<44} {:<24} {:>12}  inputs\n", "#", "op", "output", "saved bytes");
  std::set<const Storage*> seen;
  for (size_t k = 0; k < records_.size(); k++) {
    const Record& r = records_[k];
    size_t bytes = 0;
    const auto count = [&](const Tensor& t) {
      if (t.defined() && seen.insert(t.storage().get()).second) bytes += t.storage()->bytes();
    };
    for (const Variable& v : r.saved_inputs) count(v.value);
    count(r.saved_output.value);
    for (const Tensor& t : r.extras) count(t);
    std::string inputs;
    for (size_t i = 0; i < r.inputs.size(); i++)
      inputs += (i ? ", " : "") +
                (r.inputs[i] < 0 ? "constant" + r.input_shapes[i].str() : names[r.inputs[i]] + r.input_shapes[i].str());
    out += fmt::format("{:>5}  {:<44} {:<24} {:>12}  {}\n", k, title(*r.op), r.output_shape.str(), bytes, inputs);
  }
  return out + fmt::format("{} records, {} leaves, {} bytes saved\n", records_.size(), leaves_.size(), saved_bytes());
}

std::ostream& operator<<(std::ostream& out, const Tape& tape) { return out << tape.str(); }

}  // namespace fastntk
