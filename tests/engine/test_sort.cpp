// Orders and places of extremes, against the standard library; they refuse inputs that are to be differentiated.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/backend.h"
#include "engine/draw.h"
#include "engine/ops/gather.h"
#include "engine/ops/softmax.h"
#include "engine/ops/sort.h"
#include "engine/tape.h"
#include "test_device.h"

using namespace fastntk;
using namespace fastntk::test;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

std::vector<int64_t> indices_of(const Tensor& t) { return t.to_vector<int64_t>(); }
std::vector<double> values_of(const Tensor& t) { return t.to(DType::float64).to_vector<double>(); }

// What `sort` must return for one line.
std::vector<int64_t> sorted_places(const std::vector<double>& line, bool descending) {
  std::vector<int64_t> places(line.size());
  std::iota(places.begin(), places.end(), 0);
  std::stable_sort(places.begin(), places.end(), [&](int64_t i, int64_t j) {
    const double a = line[static_cast<size_t>(i)], b = line[static_cast<size_t>(j)];
    return descending ? a > b : a < b;
  });
  return places;
}

}  // namespace

TEST_CASE("sort, topk, argmax and argmin agree with a stable sort of every line", "[sort]") {
  Draws draws("sort");
  for (const DType dtype : {DType::float32, DType::float64, DType::int64})
    for (const Layout layout : {Layout::contiguous, Layout::sliced, Layout::transposed})
      for (const int axis : {0, 1, 2, -1, -2})
        for (const bool descending : {false, true}) {
          const Shape shape{3, 7, 70};
          // Many equal values: stability matters.
          Array x = draws.direction(shape, Layout::contiguous, DType::float64);
          for (double& v : x.values) v = std::round(2 * v);
          const Tensor t = place(x, dtype, layout);
          const Sorted all = sort(t, axis, descending), some = topk(t, 2, axis, descending);
          const Tensor first = descending ? argmax(t, axis) : argmin(t, axis);
          CHECK(all.values.dtype() == dtype);
          CHECK(all.indices.shape() == shape);
          CHECK(some.indices.extent(axis) == 2);
          CHECK(first.extent(axis) == 1);
          const int64_t extent = t.extent(axis);
          const Tensor lines = t.to(DType::float64).transpose(axis, -1).contiguous();
          const auto line_values = lines.to_vector<double>();
          const auto places = indices_of(all.indices.transpose(axis, -1));
          const auto values = values_of(all.values.transpose(axis, -1));
          const auto top = indices_of(some.indices.transpose(axis, -1));
          const auto best = indices_of(first.transpose(axis, -1));
          bool equal = true;
          for (int64_t l = 0; l < lines.elements() / extent; l++) {
            const std::vector<double> line(line_values.begin() + l * extent, line_values.begin() + (l + 1) * extent);
            const auto expected = sorted_places(line, descending);
            for (int64_t i = 0; i < extent; i++) {
              const auto at = static_cast<size_t>(l * extent + i);
              equal &= places[at] == expected[static_cast<size_t>(i)];
              equal &= values[at] == line[static_cast<size_t>(places[at])];
              if (i < 2) equal &= top[static_cast<size_t>(l * 2 + i)] == expected[static_cast<size_t>(i)];
            }
            equal &= best[static_cast<size_t>(l)] == expected[0];
          }
          CAPTURE(name_of(dtype), name_of(layout), axis, descending);
          CHECK(equal);
        }
}

TEST_CASE("sort: a NaN is greater than every number, argmax and argmin give the first NaN", "[sort]") {
  const Tensor x = Tensor::from<double>({6}, {2, not_a_number, -INFINITY, INFINITY, not_a_number, 2});
  CHECK(indices_of(sort(x).indices) == std::vector<int64_t>{2, 0, 5, 3, 1, 4});
  CHECK(indices_of(sort(x, 0, true).indices) == std::vector<int64_t>{1, 4, 3, 0, 5, 2});
  CHECK(indices_of(topk(x, 2).indices) == std::vector<int64_t>{1, 4});
  CHECK(indices_of(topk(x, 3, -1, false).indices) == std::vector<int64_t>{2, 0, 5});
  CHECK(argmax(x).item() == 1);
  CHECK(argmin(x).item() == 1);
  CHECK(topk(x, 0).values.shape() == Shape{0});
}

TEST_CASE("argmax is where max has its derivative", "[sort]") {
  Tape tape;
  const Variable x = tape.leaf(Tensor::from<double>({2, 4}, {1, 3, 3, 2, 5, 5, 0, 5}));
  const Variable y = max(x, 1);
  const Variable dx = tape.vjp(y, Tensor::full({2, 1}, 1, DType::float64), {&x, 1})[0];
  CHECK(values_of(dx.value) ==
        values_of(scatter_add(Tensor::full({2, 1}, 1, DType::float64), 1, argmax(x.constant(), 1), 4).value));
}

TEST_CASE("sort, topk, argmax and argmin refuse what they cannot do, with a sentence", "[sort]") {
  Tape tape;
  const Variable x = tape.leaf(Tensor::full({2, 3}, 1));
  for (const auto& [name, function] : std::vector<std::pair<std::string, std::function<void(const Variable&)>>>{
           {"sort", [](const Variable& v) { sort(v); }},
           {"topk", [](const Variable& v) { topk(v, 1); }},
           {"argmax", [](const Variable& v) { argmax(v); }},
           {"argmin", [](const Variable& v) { argmin(v); }}}) {
    CHECK_THROWS_WITH(function(x), Catch::StartsWith(name + " has no derivative, but its input [2, 3] is on a tape"));
    CHECK_NOTHROW(function(x.constant()));
    CHECK_THROWS_WITH(function(Tensor::full({}, 1)), Catch::StartsWith(name));
  }
  CHECK_THROWS_WITH(topk(x.constant(), 4), Catch::Contains("4 of the 3 elements"));
  CHECK_THROWS_WITH(argmax(Tensor::zeros({2, 0})), Catch::Contains("1 of the 0 elements"));
  CHECK_THROWS_WITH(sort(x.constant(), 2), Catch::Contains("axis 2 of a tensor of rank 2"));
}

TEST_CASE("a device orders as the CPU does: ties, NaNs, the first few, along any axis", "[sort][device]") {
  // Ties in every line, and ends of lines that are smaller and greater than what follows them.
  std::vector<float> values = {3, 1, 2, 1, 3, 0, 2, /**/ -1, 5, 5, -1, 0, 5, 4, /**/ 2, 2, 7, -3, 2, 7, -4};
  for (const bool with_nan : {false, true}) {
    if (with_nan) values[4] = values[9] = values[11] = std::numeric_limits<float>::quiet_NaN();
    const Tensor x = Tensor::from<float>({3, 7}, values), there = x.to(test_device());
    for (const int axis : {-1, -2})
      for (const SortOrder order : {SortOrder::ascending, SortOrder::ascending_nan_first, SortOrder::descending})
        for (int64_t count = 1; count <= x.extent(axis); count++) {
          Shape shape = x.shape();
          shape[axis < -1 ? 0 : 1] = count;
          Tensor expected(shape, DType::int64), got(shape, DType::int64, test_device());
          backend(Device::cpu).argsort(x, axis, order, expected);
          backend(test_device()).argsort(there, axis, order, got);
          CAPTURE(with_nan, axis, static_cast<int>(order), count);
          CHECK(indices_of(got.to(Device::cpu)) == indices_of(expected));
        }
  }
}
