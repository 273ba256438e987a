#include "models/module.h"

#include "engine/ops/elementwise.h"
#include "engine/random.h"

namespace fastntk {
namespace {

thread_local bool shapes_only = false;

// FNV-1a: the stream of random numbers that belongs to a name.
uint64_t stream_of(const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return hash;
}

Tensor draw(const Random& random, const Shape& shape, const Initial& initial) {
  switch (initial.kind) {
    case Initial::Kind::normal:
      return scale(random.normal_tensor(shape, DType::float64), initial.scale).value;
    case Initial::Kind::uniform:
      return scale(shift(scale(random.uniform_tensor(shape, DType::float64), 2), -1), initial.scale).value;
    default:
      return Tensor::full(shape, initial.scale, DType::float64);
  }
}

// Parameters or buffers of one module into those of another.
template <class To, class From>
void copy_values(const To& to, const From& from, const std::string& except) {
  require(to.size() == from.size(), "copying a model's values: {} tensors into {}", from.size(), to.size());
  for (size_t i = 0; i < to.size(); i++) {
    const std::string& name = to[i].first;
    require(name == from[i].first, "copying a model's values: {} into {}", from[i].first, name);
    if (!except.empty() && name.starts_with(except + ".")) continue;
    Tensor& target = to[i].second->value;
    const Tensor& source = from[i].second->value;
    require(target.shape() == source.shape(), "copying a model's values: {} is {} here and {} there", name,
            target.shape().str(), source.shape().str());
    target.copy_from(source);
  }
}

}  // namespace

ShapesOnly::ShapesOnly() : before_(std::exchange(shapes_only, true)) {}
ShapesOnly::~ShapesOnly() { shapes_only = before_; }

std::vector<Named<const Module>> Module::named_modules() const {
  std::vector<Named<const Module>> all{{"", this}};
  for (const auto& [name, child] : children_)
    for (const auto& [below, module] : child->named_modules())
      all.emplace_back(below.empty() ? name : name + "." + below, module);
  return all;
}

std::vector<Named<const Parameter>> Module::named_parameters() const {
  std::vector<Named<const Parameter>> all;
  for (const auto& [name, module] : named_modules())
    for (const Parameter& p : module->parameters_) all.emplace_back(name.empty() ? p.name : name + "." + p.name, &p);
  return all;
}

std::vector<Named<const ModuleBuffer>> Module::named_buffers() const {
  std::vector<Named<const ModuleBuffer>> all;
  for (const auto& [name, module] : named_modules())
    for (const ModuleBuffer& b : module->buffers_) all.emplace_back(name.empty() ? b.name : name + "." + b.name, &b);
  return all;
}

// A module that is not const owns parameters and buffers that are not const either.
std::vector<Named<Parameter>> Module::named_parameters() {
  std::vector<Named<Parameter>> all;
  for (const auto& [name, p] : std::as_const(*this).named_parameters())
    all.emplace_back(name, const_cast<Parameter*>(p));
  return all;
}

std::vector<Named<ModuleBuffer>> Module::named_buffers() {
  std::vector<Named<ModuleBuffer>> all;
  for (const auto& [name, b] : std::as_const(*this).named_buffers())
    all.emplace_back(name, const_cast<ModuleBuffer*>(b));
  return all;
}

int64_t Module::parameter_elements() const {
  int64_t count = 0;
  for (const auto& [name, p] : named_parameters()) count += p->value.elements();
  return count;
}

const Parameter* Module::first_parameter() const {
  if (!parameters_.empty()) return &parameters_.front();
  for (const auto& [name, child] : children_)
    if (const Parameter* const p = child->first_parameter()) return p;
  return nullptr;
}

DType Module::dtype() const {
  const Parameter* const p = first_parameter();
  require(p != nullptr, "a model without parameters has no element type");
  return p->value.dtype();
}

Device Module::device() const {
  const Parameter* const p = first_parameter();
  return p ? p->value.device() : Device::cpu;
}

void Module::to(DType dtype) {
  require(is_floating(dtype), "a model is float32 or float64, not {}", name_of(dtype));
  for (const auto& [name, p] : named_parameters()) p->value = p->value.to(dtype);
  for (const auto& [name, b] : named_buffers())
    if (is_floating(b->value.dtype())) b->value = b->value.to(dtype);
}

void Module::to(Device device) {
  for (const auto& [name, p] : named_parameters()) p->value = p->value.to(device);
  for (const auto& [name, b] : named_buffers())
    if (is_floating(b->value.dtype())) b->value = b->value.to(device);
}

void Module::copy_state(const Module& from, const std::string& except) {
  copy_values(named_parameters(), from.named_parameters(), except);
  copy_values(named_buffers(), from.named_buffers(), except);
}

void Module::initialise(uint64_t seed) {
  for (const auto& [name, p] : named_parameters())
    p->value.copy_from(draw(Random(seed, stream_of(name)), p->value.shape(), p->initial));
}

Parameter& Module::add_parameter(std::string name, const Shape& shape, Initial initial) {
  Tensor value = shapes_only ? Tensor::zeros({}).expand(shape) : Tensor::zeros(shape);
  return parameters_.emplace_back(Parameter{std::move(name), std::move(value), initial});
}

ModuleBuffer& Module::add_buffer(std::string name, Tensor value) {
  return buffers_.emplace_back(ModuleBuffer{std::move(name), std::move(value)});
}

}  // namespace fastntk
