#include "engine/ops/reduce.h"

#include <algorithm>
#include <numeric>

#include "engine/backend.h"
#include "engine/ops/elementwise.h"

namespace fastntk {
namespace {

int from_back(int axis, int rank, const char* where) {
  const int i = axis < 0 ? axis : axis - rank;
  require(i >= -rank && i < 0, "{}: axis {} of a tensor of rank {}", where, axis, rank);
  return i;
}

// y = Σ over axes x.   Transpose: repeat along the axes.
struct Sum final : Op {
  static inline const OpInfo& info = register_op({"sum", "y = Σ_axes x", "dy = Σ_axes dx"});
  explicit Sum(Shape axes) : Op(info), axes(axes) {}
  Shape axes;  // negative, ascending

  std::string attributes() const override { return "axes=" + axes.str(); }
  Shape shape(std::span<const Shape> in) const override {
    Shape out = in[0];
    for (const int64_t axis : axes) out[static_cast<int>(axis)] = 1;
    return out;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape in_shape = in[0].shape();
    Tensor out(shape(std::span(&in_shape, 1)), in[0].dtype(), in[0].device());
    backend_of(in[0]).reduce(ReduceKind::sum, in[0], out);
    return out;
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override { return apply(Sum(axes), {t[0]}); }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {expand(c, c.shape().leading(c.rank() - at.output_shape().rank()) + at.input_shape(0))};
  }
  bool mixes_samples(std::span<const Shape> in) const override {
    for (const int64_t axis : axes)
      if (axis == -in[0].rank() && in[0][0] != 1) return true;
    return false;
  }
};

// y = x repeated along axes of extent 1.   Transpose: sum over them.
struct Expand final : Op {
  static inline const OpInfo& info =
      register_op({"expand", "y = x repeated along axes of extent 1", "dy = dx repeated"});
  explicit Expand(const Shape& to) : Op(info), to(to) {}
  Shape to;

  std::string attributes() const override { return "to=" + to.str(); }
  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() <= to.rank() && broadcast(in[0], to, "expand") == to, "expand: {} to {}", in[0].str(),
            to.str());
    return to;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return in[0].expand(to);
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    const Shape lead = t[0].shape().leading(t[0].rank() - at.input_shape(0).rank());
    const Shape ones = Shape::filled(to.rank() - at.input_shape(0).rank(), 1);
    return expand(reshape(t[0], lead + ones + at.input_shape(0)), lead + to);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {sum_to(c, at.input_shape(0), to.rank())};
  }
  bool mixes_samples(std::span<const Shape> in) const override {
    return in[0].rank() != to.rank() || in[0][0] != to[0];
  }
};

// y = x under another shape; `from` and `to` are trailing axes.   Transpose: the inverse reshape.
struct Reshape final : Op {
  static inline const OpInfo& info = register_op({"reshape", "y = x under another shape", "dy = dx under that shape"});
  Reshape(const Shape& from, const Shape& to) : Op(info), from(from), to(to) {}
  Shape from, to;

  std::string attributes() const override { return "from=" + from.str() + " to=" + to.str(); }
  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= from.rank() && in[0].trailing(from.rank()) == from && from.elements() == to.elements(),
            "reshape of {}: from {} to {}", in[0].str(), from.str(), to.str());
    return in[0].leading(in[0].rank() - from.rank()) + to;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return in[0].reshape(in[0].shape().leading(in[0].rank() - from.rank()) + to);
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override {
    return apply(Reshape(from, to), {t[0]});
  }
  std::vector<Variable> vjp(const Linearisation&, const Variable& c) const override {
    return {apply(Reshape(to, from), {c})};
  }
  bool mixes_samples(std::span<const Shape> in) const override {
    return from.rank() == in[0].rank() && in[0].rank() > 0;
  }
};

// y = x with its trailing axes reordered.   Transpose: the inverse order.
struct Permute final : Op {
  static inline const OpInfo& info =
      register_op({"permute", "y = x with axes reordered", "dy = dx with axes reordered"});
  explicit Permute(const Shape& order) : Op(info), order(order) {}
  Shape order;  // order[i] counts from the front of the trailing order.rank() axes

  std::string attributes() const override { return "order=" + order.str(); }
  std::vector<int> full_order(int rank) const {
    const int lead = rank - order.rank();
    std::vector<int> full(static_cast<size_t>(rank));
    std::iota(full.begin(), full.end(), 0);
    for (int i = 0; i < order.rank(); i++)
      full[static_cast<size_t>(lead) + static_cast<size_t>(i)] = lead + static_cast<int>(order[i]);
    return full;
  }
  Shape shape(std::span<const Shape> in) const override {
    require(in[0].rank() >= order.rank(), "permute({}) of {}", attributes(), in[0].str());
    Shape out = in[0];
    const auto full = full_order(in[0].rank());
    for (int i = 0; i < in[0].rank(); i++) out[i] = in[0][full[static_cast<size_t>(i)]];
    return out;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return in[0].permute(full_order(in[0].rank()));
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override {
    return apply(Permute(order), {t[0]});
  }
  std::vector<Variable> vjp(const Linearisation&, const Variable& c) const override {
    Shape inverse = order;
    for (int i = 0; i < order.rank(); i++) inverse[static_cast<int>(order[i])] = i;
    return {apply(Permute(inverse), {c})};
  }
  bool mixes_samples(std::span<const Shape> in) const override {
    return in[0].rank() > 0 && full_order(in[0].rank())[0] != 0;
  }
};

// y = x[from : to : step] along one axis.   Transpose: spread into zeros.
struct Slice final : Op {
  static inline const OpInfo& info = register_op({"slice", "y = x[from:to:step]", "dy = dx[from:to:step]"});
  Slice(int axis, int64_t from, int64_t to, int64_t step) : Op(info), axis(axis), from(from), to(to), step(step) {}
  int axis;
  int64_t from, to, step;

  std::string attributes() const override { return fmt::format("axis={} [{}:{}:{}]", axis, from, to, step); }
  Shape shape(std::span<const Shape> in) const override {
    require(step > 0 && 0 <= from && from <= to && to <= in[0][axis], "slice({}) of {}", attributes(), in[0].str());
    Shape out = in[0];
    out[axis] = (to - from + step - 1) / step;
    return out;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    return in[0].slice(axis, from, to, step);
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override {
    return apply(Slice(axis, from, to, step), {t[0]});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override;
  bool mixes_samples(std::span<const Shape> in) const override { return axis == -in[0].rank(); }
};

// y = zeros of extent `extent` with x at from, from + step, ….   Transpose: the slice.
struct Spread final : Op {
  static inline const OpInfo& info =
      register_op({"spread", "y[from:…:step] = x, else 0", "dy[from:…:step] = dx, else 0"});
  Spread(int axis, int64_t extent, int64_t from, int64_t step)
      : Op(info), axis(axis), extent(extent), from(from), step(step) {}
  int axis;
  int64_t extent, from, step;

  std::string attributes() const override {
    return fmt::format("axis={} extent={} from={} step={}", axis, extent, from, step);
  }
  int64_t end(int64_t count) const { return count ? from + (count - 1) * step + 1 : from; }
  Shape shape(std::span<const Shape> in) const override {
    require(step > 0 && from >= 0 && end(in[0][axis]) <= extent, "spread({}) of {}", attributes(), in[0].str());
    Shape out = in[0];
    out[axis] = extent;
    return out;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape in_shape = in[0].shape();
    Tensor out = Tensor::zeros(shape(std::span(&in_shape, 1)), in[0].dtype(), in[0].device());
    out.slice(axis, from, end(in_shape[axis]), step).copy_from(in[0]);
    return out;
  }
  Variable jvp(const Linearisation&, std::span<const Variable> t) const override {
    return apply(Spread(axis, extent, from, step), {t[0]});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    return {apply(Slice(axis, from, end(at.input_shape(0)[axis]), step), {c})};
  }
  bool mixes_samples(std::span<const Shape> in) const override { return axis == -in[0].rank(); }
};

std::vector<Variable> Slice::vjp(const Linearisation& at, const Variable& c) const {
  return {apply(Spread(axis, at.input_shape(0)[axis], from, step), {c})};
}

// y = the inputs one after the other.   Transpose: the slices.
struct Concat final : Op {
  static inline const OpInfo& info = register_op({"concat", "y = [x₀, x₁, …]", "dy = [dx₀, dx₁, …]"});
  explicit Concat(int axis) : Op(info), axis(axis) {}
  int axis;

  std::string attributes() const override { return fmt::format("axis={}", axis); }
  Shape shape(std::span<const Shape> in) const override {
    require(!in.empty(), "concat needs at least one input");
    Shape out = in[0];
    for (size_t i = 1; i < in.size(); i++) {
      Shape other = in[i];
      require(other.rank() == out.rank(), "concat: {} and {}", in[0].str(), in[i].str());
      other[axis] = out[axis];
      require(other == out, "concat along axis {}: {} and {} differ in another axis", axis, in[0].str(), in[i].str());
      out[axis] += in[i][axis];
    }
    return out;
  }
  Needs needs(ActiveSet) const override { return {}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    std::vector<Shape> shapes;
    for (const Tensor& t : in) {
      require(t.dtype() == in[0].dtype(), "concat: {} and {}: the types differ", in[0].describe(), t.describe());
      shapes.push_back(t.shape());
    }
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    int64_t at = 0;
    for (const Tensor& t : in) {
      out.slice(axis, at, at + t.extent(axis)).copy_from(t);
      at += t.extent(axis);
    }
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    Shape lead;
    Tensor zero;
    for (size_t i = 0; i < t.size(); i++) {
      if (!t[i].defined()) continue;
      lead = t[i].shape().leading(t[i].rank() - at.input_shape(static_cast<int>(i)).rank());
      zero = Tensor::zeros({}, t[i].dtype(), t[i].value.device());
    }
    std::vector<Variable> parts;
    for (size_t i = 0; i < t.size(); i++) {
      const Shape full = lead + at.input_shape(static_cast<int>(i));
      parts.push_back(t[i].defined() ? t[i] : Variable(zero.expand(full)));
    }
    return concat(parts, axis);
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    std::vector<Variable> out;
    int64_t from = 0;
    for (int i = 0; i < at.inputs(); i++) {
      const int64_t to = from + at.input_shape(i)[axis];
      out.push_back(at.active(i) ? slice(c, axis, from, to) : Variable{});
      from = to;
    }
    return out;
  }
  bool mixes_samples(std::span<const Shape> in) const override { return axis == -in[0].rank(); }
};

Shape negative_axes(const Variable& x, std::span<const int> axes, const char* where) {
  std::vector<int> given;
  for (const int axis : axes) given.push_back(from_back(axis, x.rank(), where));
  Shape out;
  for (int axis = -x.rank(); axis < 0; axis++)
    if (std::find(given.begin(), given.end(), axis) != given.end()) out.push_back(axis);
  return out;
}

}  // namespace

Variable sum(const Variable& x, std::span<const int> axes) { return apply(Sum(negative_axes(x, axes, "sum")), {x}); }

Variable mean(const Variable& x, std::initializer_list<int> axes) {
  int64_t count = 1;
  for (const int64_t axis : negative_axes(x, std::span(axes.begin(), axes.size()), "mean"))
    count *= x.extent(static_cast<int>(axis));
  return scale(sum(x, axes), 1.0 / static_cast<double>(count));
}

Variable sum(const Variable& x) {
  Shape axes;
  for (int axis = -x.rank(); axis < 0; axis++) axes.push_back(axis);
  return reshape(apply(Sum(axes), {x}), {});
}

Variable mean(const Variable& x) { return scale(sum(x), 1.0 / static_cast<double>(x.shape().elements())); }

Variable sum_to(const Variable& c, const Shape& input, int output_rank) {
  const int lead = c.rank() - output_rank, added = output_rank - input.rank();
  Shape axes;
  for (int i = 0; i < output_rank; i++)
    if (i < added || (input[i - added] == 1 && c.extent(lead + i) != 1)) axes.push_back(i - output_rank);
  const Variable summed = axes.rank() ? apply(Sum(axes), {c}) : c;
  return added ? reshape(summed, c.shape().leading(lead) + input) : summed;
}

Variable expand(const Variable& x, const Shape& shape) { return shape == x.shape() ? x : apply(Expand(shape), {x}); }

Variable reshape(const Variable& x, const Shape& shape) {
  if (shape == x.shape()) return x;
  int same = 0;
  while (same < x.rank() && same < shape.rank() && x.extent(same) == shape[same]) same++;
  // An axis without elements makes all that is behind it equal.
  while (same > 0 && x.shape().slice(same, x.rank()).elements() != shape.slice(same, shape.rank()).elements()) same--;
  return apply(Reshape(x.shape().slice(same, x.rank()), shape.slice(same, shape.rank())), {x});
}

Variable permute(const Variable& x, std::span<const int> order) {
  require(static_cast<int>(order.size()) == x.rank(), "permute: {} axes given for a tensor of rank {}", order.size(),
          x.rank());
  Shape full;
  for (const int axis : order) full.push_back(from_back(axis, x.rank(), "permute") + x.rank());
  int same = 0;
  while (same < full.rank() && full[same] == same) same++;
  Shape tail;
  for (int i = same; i < full.rank(); i++) tail.push_back(full[i] - same);
  return apply(Permute(tail), {x});
}

Variable transpose(const Variable& x, int a, int b) {
  const int ta = from_back(a, x.rank(), "transpose"), tb = from_back(b, x.rank(), "transpose");
  const int count = -std::min(ta, tb);
  Shape order;
  for (int i = 0; i < count; i++) order.push_back(i);
  std::swap(order[count + ta], order[count + tb]);
  return apply(Permute(order), {x});
}

Variable slice(const Variable& x, int axis, int64_t from, int64_t to, int64_t step) {
  return apply(Slice(from_back(axis, x.rank(), "slice"), from, to, step), {x});
}

Variable pad(const Variable& x, int axis, int64_t before, int64_t after) {
  require(before >= 0 && after >= 0, "pad: {} before and {} after", before, after);
  const int back = from_back(axis, x.rank(), "pad");
  return apply(Spread(back, x.extent(back) + before + after, before, 1), {x});
}

Variable concat(const std::vector<Variable>& inputs, int axis) {
  require(!inputs.empty(), "concat needs at least one input");
  return apply(Concat(from_back(axis, inputs[0].rank(), "concat")), inputs);
}

}  // namespace fastntk
