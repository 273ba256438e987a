#include "engine/ops/gather.h"

#include "engine/backend.h"

namespace fastntk {
namespace {

// Both ops take {x, index}; the index is a constant of the linear map.
struct Indexed : Op {
  Indexed(const OpInfo& info, int axis) : Op(info), axis(axis) {}
  int axis;  // negative

  Needs needs(ActiveSet) const override { return {.inputs = 2}; }
  bool mixes_samples(std::span<const Shape> in) const override { return axis == -in[0].rank(); }
};

struct Gather final : Indexed {
  static inline const OpInfo& info = register_op({"gather", "y_i = x_index(i)", "dy_i = dx_index(i)"});
  explicit Gather(int axis) : Indexed(info, axis) {}

  std::string attributes() const override { return fmt::format("axis={}", axis); }
  Shape shape(std::span<const Shape> in) const override {
    Shape out = in[0];
    require(in[1].rank() >= -axis, "gather({}): the index {} lacks the axis", attributes(), in[1].str());
    out[axis] = in[1][axis];
    require(in[1].rank() <= out.rank() && broadcast(in[1], out, "gather") == out,
            "gather({}): the index {} does not broadcast to {}", attributes(), in[1].str(), out.str());
    return out;
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    backend_of(in[0]).gather(in[0], axis, in[1].expand(out.shape()), out);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return gather(t[0], axis, at.input(1).value);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {scatter_add(c, axis, at.input(1).value, at.input_shape(0)[axis]), {}};
  }
};

struct ScatterAdd final : Indexed {
  static inline const OpInfo& info =
      register_op({"scatter_add", "y_j = Σ_{i: index(i)=j} x_i", "dy_j = Σ_{i: index(i)=j} dx_i"});
  ScatterAdd(int axis, int64_t extent) : Indexed(info, axis), extent(extent) {}
  int64_t extent;

  std::string attributes() const override { return fmt::format("axis={} extent={}", axis, extent); }
  Shape shape(std::span<const Shape> in) const override {
    require(in[1].rank() <= in[0].rank() && in[1].rank() >= -axis && in[1][axis] == in[0][axis] &&
                broadcast(in[1], in[0], "scatter_add") == in[0],
            "scatter_add({}): the index {} does not broadcast to {}", attributes(), in[1].str(), in[0].str());
    Shape out = in[0];
    out[axis] = extent;
    return out;
  }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out = Tensor::zeros(shape(shapes), in[0].dtype(), in[0].device());
    backend_of(in[0]).scatter_add(in[0], axis, in[1].expand(in[0].shape()), out);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return scatter_add(t[0], axis, at.input(1).value, extent);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {gather(c, axis, at.input(1).value), {}};
  }
};

int from_back(const Variable& x, int axis, const char* where) {
  const int i = axis < 0 ? axis : axis - x.rank();
  require(i >= -x.rank() && i < 0, "{}: axis {} of a tensor of rank {}", where, axis, x.rank());
  return i;
}

}  // namespace

Variable gather(const Variable& x, int axis, const Tensor& index) {
  return apply(Gather(from_back(x, axis, "gather")), {x, index});
}

Variable scatter_add(const Variable& x, int axis, const Tensor& index, int64_t extent) {
  return apply(ScatterAdd(from_back(x, axis, "scatter_add"), extent), {x, index});
}

}  // namespace fastntk
