// Modules: a tree of named parameters and buffers with a forward pass. Names and their order are those of torch, so
// that a torchvision checkpoint fits without renaming. docs/tape.md shows how a forward pass becomes a linear map.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/variable.h"

namespace fastntk {

class Pass;

/// The distribution of a parameter's elements before training.
struct Initial {
  enum class Kind : uint8_t { constant, normal, uniform };
  Kind kind = Kind::constant;
  /// The constant, the standard deviation of a normal of mean 0, or the bound b of a uniform on [−b, b).
  double scale = 0;

  static Initial constant(double value) { return {Kind::constant, value}; }
  static Initial normal(double deviation) { return {Kind::normal, deviation}; }
  static Initial uniform(double bound) { return {Kind::uniform, bound}; }
};

/// A tensor that may be tuned, in torch's layout: convolution [O, I, kh, kw], linear [O, I], batch norm [C].
struct Parameter {
  std::string name;  ///< within its module, e.g. "weight"
  Tensor value;
  Initial initial;
};

/// A tensor that belongs to the state of a module but is never tuned, e.g. "running_mean".
struct ModuleBuffer {
  std::string name;
  Tensor value;
};

/// Full name ("layer1.0.bn2.bias") and what bears it.
template <class T>
using Named = std::pair<std::string, T*>;

/// While one lives, parameters of modules made by this thread take no memory: all elements of each are one zero. Such
/// modules serve to compare names and shapes.
class ShapesOnly {
 public:
  ShapesOnly();
  ~ShapesOnly();
  ShapesOnly(const ShapesOnly&) = delete;
  ShapesOnly& operator=(const ShapesOnly&) = delete;

 private:
  bool before_;
};

/// A node of a model. Derive from it, create parameters, buffers and children in the constructor (their order is that
/// of the names), and say in forward() what it computes. Parameters and buffers keep their address as long as the
/// module lives. Several threads may call forward() at once on one module as long as none is in train mode.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Computes the output for a batch x [N, …]. `pass` says how the parameters enter: see models/pass.h.
  virtual Variable forward(const Pass& pass, const Variable& x) const = 0;
  /// The name of the child that turns features into logits ("fc"), empty if there is none: what the subset `head`
  /// means.
  virtual std::string head() const { return {}; }
  /// Asked of a whole model: whether its samples have nothing to do with one another in train mode either (no batch
  /// statistics), so that training may take a batch in parts.
  virtual bool separates_samples() const { return false; }

  /// In torch's order: a module's own, then those of its children, depth first.
  std::vector<Named<Parameter>> named_parameters();
  std::vector<Named<const Parameter>> named_parameters() const;
  std::vector<Named<ModuleBuffer>> named_buffers();
  std::vector<Named<const ModuleBuffer>> named_buffers() const;
  /// This module under the name "", then all below it, in the same order.
  std::vector<Named<const Module>> named_modules() const;

  /// The number of elements of all parameters.
  int64_t parameter_elements() const;
  /// The type of the parameters; an error where there are none.
  DType dtype() const;
  /// Converts parameters and floating-point buffers to another type.
  void to(DType dtype);
  /// The device whose memory the parameters are in; the CPU where there are none.
  Device device() const;
  /// Moves parameters and floating-point buffers to the memory of another device; what counts (num_batches_tracked)
  /// stays on the host.
  void to(Device device);
  /// Copies the values of all parameters and buffers of a module with the same names and shapes; those of the child
  /// named `except` stay as they are.
  void copy_state(const Module& from, const std::string& except = {});
  /// Fills every parameter from its initial distribution. Element i depends on the seed, the parameter's full name and
  /// i only, so that models that share a parameter's name and shape start from the same values there.
  void initialise(uint64_t seed);

 protected:
  /// A new parameter of float32 zeros.
  Parameter& add_parameter(std::string name, const Shape& shape, Initial initial);
  ModuleBuffer& add_buffer(std::string name, Tensor value);
  template <class M>
  M& add_child(std::string name, std::unique_ptr<M> child) {
    M& reference = *child;
    children_.emplace_back(std::move(name), std::move(child));
    return reference;
  }

  std::deque<Parameter> parameters_;
  std::deque<ModuleBuffer> buffers_;
  std::vector<std::pair<std::string, std::unique_ptr<Module>>> children_;

 private:
  const Parameter* first_parameter() const;
};

}  // namespace fastntk
