#include "engine/ops/indexing.h"

#include <fmt/format.h>

#include <numeric>

#include "engine/backend.h"
#include "engine/ops/gather.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

// The axis counted from the back of `rank` axes.
int from_back(int axis, int rank, const char* where) {
  require(axis >= -rank && axis < rank, "{}: axis {} of a tensor of rank {}", where, axis, rank);
  return axis < 0 ? axis : axis - rank;
}

// y[n, t] = table[n, ids[n, t]] or table[0, ids[n, t]].   Transpose: the cotangents of a row's uses are summed.
struct Embedding final : Op {
  static inline const OpInfo& info = register_op({"embedding", "y_t = x_id(t)", "dy_t = dx_id(t)"});
  Embedding() : Op(info) {}

  Shape shape(std::span<const Shape> in) const override {
    const Shape &table = in[0], &ids = in[1];
    require(ids.rank() == 2 && table.rank() >= 3 && (table[-3] == 1 || table[-3] == ids[0]),
            "embedding needs a table [1 or N, V, D] and ids [N, T], got {} and {}", table.str(), ids.str());
    return table.leading(table.rank() - 3) + ids + Shape{table[-1]};
  }
  Needs needs(ActiveSet) const override { return {.inputs = 2}; }
  Tensor forward(std::span<const Tensor> in, ActiveSet, std::vector<Tensor>&) const override {
    const Shape shapes[] = {in[0].shape(), in[1].shape()};
    Tensor out(shape(shapes), in[0].dtype(), in[0].device());
    Shape tables = in[0].shape();
    tables[-3] = in[1].extent(0);
    backend_of(in[0]).gather(in[0].expand(tables), -2, in[1].unsqueeze(-1).expand(out.shape()), out);
    return out;
  }
  Variable jvp(const Linearisation& at, std::span<const Variable> t) const override {
    return apply(Embedding(), {t[0], at.input(1)});
  }
  std::vector<Variable> vjp(const Linearisation& at, const Variable& c) const override {
    const Tensor& ids = at.input(1).value;
    const int64_t samples = ids.extent(0), tokens = ids.extent(1), rows = at.input_shape(0)[-2];
    if (at.input_shape(0)[-3] == samples) return {scatter_add(c, -2, ids.unsqueeze(-1), rows), {}};
    // One table for all samples: their tokens are the tokens of one.
    const Shape joined = c.shape().leading(c.rank() - 3) + Shape{1, samples * tokens, c.extent(-1)};
    return {scatter_add(reshape(c, joined), -2, ids.reshape({1, samples * tokens, 1}), rows), {}};
  }
};

}  // namespace

Variable index_select(const Variable& x, int axis, const Tensor& index) {
  const int back = from_back(axis, x.rank(), "index_select");
  require(index.rank() == 1 && index.dtype() == DType::int64, "index_select needs an int64 list of indices, got {}",
          index.describe());
  return gather(x, back, index.reshape(Shape{index.extent(0)} + Shape::filled(-back - 1, 1)));
}

Variable embedding(const Variable& table, const Tensor& ids) {
  require(ids.rank() >= 1 && ids.dtype() == DType::int64, "embedding needs int64 ids [N, T…], got {}", ids.describe());
  const int64_t samples = ids.extent(0), tokens = ids.shape().slice(1, ids.rank()).elements();
  const Variable rows = apply(Embedding(), {table, ids.reshape({samples, tokens})});
  return reshape(rows,
                 rows.shape().leading(rows.rank() - 2) + ids.shape().slice(1, ids.rank()) + Shape{rows.extent(-1)});
}

Variable flip(const Variable& x, std::initializer_list<int> axes) {
  Variable y = x;
  for (const int axis : axes) {
    const int64_t extent = x.extent(from_back(axis, x.rank(), "flip"));
    std::vector<int64_t> index(static_cast<size_t>(extent));
    std::iota(index.rbegin(), index.rend(), 0);
    y = index_select(y, axis, Tensor::from<int64_t>({extent}, index).to(x.value.device()));
  }
  return y;
}

Variable roll(const Variable& x, int64_t shift, int axis) {
  const int64_t extent = x.extent(from_back(axis, x.rank(), "roll"));
  std::vector<int64_t> index(static_cast<size_t>(extent));
  for (int64_t i = 0; i < extent; i++) index[static_cast<size_t>(i)] = ((i - shift) % extent + extent) % extent;
  return index_select(x, axis, Tensor::from<int64_t>({extent}, index).to(x.value.device()));
}

Variable stack(const std::vector<Variable>& inputs, int axis) {
  std::vector<Variable> unsqueezed;
  for (const Variable& x : inputs) {
    require(x.shape() == inputs[0].shape(), "stack: {} and {} differ", inputs[0].shape().str(), x.shape().str());
    unsqueezed.push_back(unsqueeze(x, axis));
  }
  return concat(unsqueezed, axis);
}

std::vector<Variable> split(const Variable& x, const std::vector<int64_t>& extents, int axis) {
  const int64_t extent = x.extent(from_back(axis, x.rank(), "split"));
  require(std::accumulate(extents.begin(), extents.end(), int64_t{0}) == extent,
          "split: the extents [{}] do not sum to that of axis {} of {}", fmt::join(extents, ", "), axis,
          x.shape().str());
  std::vector<Variable> pieces;
  int64_t from = 0;
  for (const int64_t e : extents) {
    pieces.push_back(slice(x, axis, from, from + e));
    from += e;
  }
  return pieces;
}

std::vector<Variable> split(const Variable& x, int64_t extent, int axis) {
  require(extent > 0, "split: pieces of {}", extent);
  std::vector<int64_t> extents;
  for (int64_t left = x.extent(from_back(axis, x.rank(), "split")); left > 0; left -= extent)
    extents.push_back(std::min(left, extent));
  return split(x, extents, axis);
}

Variable squeeze(const Variable& x, int axis) {
  const int at = from_back(axis, x.rank(), "squeeze") + x.rank();
  require(x.extent(at) == 1, "squeeze: axis {} of {} has not extent 1", axis, x.shape().str());
  return reshape(x, x.shape().leading(at) + x.shape().slice(at + 1, x.rank()));
}

Variable unsqueeze(const Variable& x, int axis) {
  const int at = from_back(axis, x.rank() + 1, "unsqueeze") + x.rank() + 1;
  return reshape(x, x.shape().leading(at) + Shape{1} + x.shape().slice(at, x.rank()));
}

}  // namespace fastntk
