#include "engine/tensor.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "engine/draw.h"
#include "engine/random.h"

using namespace fastntk;
using namespace fastntk::test;
using Catch::Contains;

namespace {

// 0, 1, 2, … under a shape.
Tensor counted(const Shape& shape, DType dtype = DType::float32) {
  Array a(shape);
  for (size_t i = 0; i < a.values.size(); i++) a.values[i] = static_cast<double>(i);
  return place(a, dtype, Layout::contiguous);
}
bool same(const Array& a, const Array& b) { return a.shape == b.shape && a.values == b.values; }
bool shares(const Tensor& a, const Tensor& b) { return a.storage() == b.storage(); }

}  // namespace

TEST_CASE("a tensor is made from values, a constant or nothing") {
  CHECK(Tensor::from<float>({2, 2}, {1, 2, 3, 4}).to_vector<float>() == std::vector<float>{1, 2, 3, 4});
  CHECK(Tensor::from<int64_t>({2}, {1, -2}).dtype() == DType::int64);
  CHECK(Tensor::full({3}, 2.5, DType::float64).to_vector<double>() == std::vector<double>{2.5, 2.5, 2.5});
  CHECK(Tensor::zeros({0, 3}).elements() == 0);
  CHECK(Tensor::scalar(7).item() == 7);
  CHECK(Tensor::scalar(7).rank() == 0);
  CHECK(Tensor({3, 4}, DType::uint8).bytes() == 12);
  CHECK(Tensor({3, 4}, DType::float64).bytes() == 96);
  CHECK_FALSE(Tensor().defined());
  CHECK(counted({2, 3}).describe() == "float32 [2, 3]");
}

TEST_CASE("a tensor refuses what cannot be") {
  CHECK_THROWS_WITH(Tensor::from<float>({2, 2}, {1, 2, 3}), Contains("[2, 2] has 4 elements, got 3"));
  CHECK_THROWS_WITH(Tensor({2, -1}), Contains("cannot be negative: [2, -1]"));
  CHECK_THROWS_WITH(Tensor({int64_t{1} << 40, int64_t{1} << 40}), Contains("too many elements"));
  CHECK_THROWS_WITH(counted({2}).data<double>(), Contains("float32 was read as float64"));
  CHECK_THROWS_WITH(Tensor().data<float>(), Contains("undefined tensor has no data"));
  CHECK_THROWS_WITH(counted({2}).item(), Contains("needs a tensor of one element, got [2]"));
  CHECK_THROWS_WITH(counted({2, 3}).reshape({4}), Contains("cannot reshape [2, 3] to [4]"));
  CHECK_THROWS_WITH(counted({2, 3}).permute({0, 0}), Contains("axis 0 appears twice"));
  CHECK_THROWS_WITH(counted({2, 3}).permute({0}), Contains("1 axes given for a tensor of rank 2"));
  CHECK_THROWS_WITH(counted({2, 3}).slice(1, 1, 4), Contains("slice [1:4:1] of axis 1 of [2, 3]"));
  CHECK_THROWS_WITH(counted({2, 3}).slice(2, 0, 1), Contains("axis 2 of a tensor of rank 2"));
  CHECK_THROWS_WITH(counted({2, 3}).slice(0, 0, 2, 0), Contains("slice"));
  CHECK_THROWS_WITH(counted({2, 3}).select(-1, 3), Contains("index 3 of axis 1 of [2, 3]"));
  CHECK_THROWS_WITH(counted({2, 3}).expand({2, 4}), Contains("cannot expand [2, 3] to [2, 4]"));
  CHECK_THROWS_WITH(counted({2, 3}).expand({3}), Contains("cannot expand [2, 3] to [3]"));
  CHECK_THROWS_WITH(counted({2, 3}).unsqueeze(3), Contains("no axis 3"));
  CHECK_THROWS_WITH(Shape::filled(9, 1), Contains("at most 8 axes"));
}

TEST_CASE("views show the right elements without copying") {
  const Tensor x = counted({2, 3, 4});
  const Array a = to_array(x);
  CHECK(same(to_array(x.permute({2, 0, 1})), permuted(a, {2, 0, 1})));
  CHECK(same(to_array(x.transpose(0, -1)), permuted(a, {2, 1, 0})));
  CHECK(same(to_array(x.slice(-1, 1, 4, 2)), sliced(a, -1, 1, 4, 2)));
  CHECK(same(to_array(x.slice(1, 3, 3)), sliced(a, 1, 3, 3, 1)));
  CHECK(same(to_array(x.select(0, 1)), part(a, 1)));
  CHECK(x.select(1, 2).to_vector<float>() == std::vector<float>{8, 9, 10, 11, 20, 21, 22, 23});
  CHECK(x.unsqueeze(1).shape() == Shape{2, 1, 3, 4});
  CHECK(x.unsqueeze(-1).shape() == Shape{2, 3, 4, 1});
  CHECK(x.unsqueeze(-1).is_contiguous());
  const Tensor repeated = x.slice(1, 0, 1).expand({5, 2, 3, 4});
  CHECK(repeated.strides() == Shape{0, 12, 0, 1});
  CHECK(same(to_array(repeated), binary(sliced(a, 1, 0, 1, 1), Array({5, 2, 3, 4}), std::plus<>())));
  for (const Tensor& view : {x.permute({2, 0, 1}), x.slice(1, 0, 2), x.select(2, 0), x.unsqueeze(0), repeated})
    CHECK(shares(view, x));
}

TEST_CASE("a reshape is a view whenever the strides allow it") {
  const Tensor x = counted({4, 6, 5});
  CHECK(shares(x.reshape({2, 2, 30}), x));
  const Tensor sliced_rows = x.slice(0, 0, 4, 2);  // [2, 6, 5], evenly strided but not contiguous
  for (const Shape& to : {Shape{2, 30}, Shape{2, 2, 3, 5}, Shape{1, 2, 30, 1}, Shape{2, 3, 2, 5}}) {
    const Tensor view = sliced_rows.reshape(to);
    CHECK(shares(view, x));
    CHECK(view.shape() == to);
    CHECK(to_array(view).values == to_array(sliced_rows).values);
  }
  for (const Tensor& other :
       {sliced_rows.reshape({60}), x.slice(2, 0, 4).reshape({96}), x.permute({1, 0, 2}).reshape({24, 5})})
    CHECK_FALSE(shares(other, x));
  CHECK(to_array(x.permute({1, 0, 2}).reshape({24, 5})).values == to_array(x.permute({1, 0, 2})).values);
  const Tensor repeated = counted({3, 1}).expand({3, 4});
  CHECK(shares(repeated.reshape({3, 2, 2}), repeated));
  CHECK(to_array(repeated.reshape({12})).values == to_array(repeated).values);
}

TEST_CASE("a tensor without elements may be viewed in any way") {
  const Tensor x = Tensor::zeros({3, 0});
  for (const Tensor& view : {x.transpose(0, 1), x.permute({1, 0}), x.slice(0, 1, 3), x.expand({2, 3, 0})}) {
    CHECK(view.elements() == 0);
    CHECK(view.is_contiguous());
    CHECK(view.reshape({0, 7}).shape() == Shape{0, 7});
    CHECK(view.clone().to_vector<float>().empty());
  }
}

TEST_CASE("chains of random views agree with the reference") {
  const Random random(11);
  for (uint64_t run = 0; run < 300; run++) {
    const Random r = random.stream(run);
    uint64_t n = 0;
    const auto below = [&](int64_t k) { return r.below(k, n++); };
    Shape shape;
    for (int64_t rank = 1 + below(4); rank > 0; rank--) shape.push_back(1 + below(4));
    Tensor x = counted(shape);
    Array a = to_array(x);
    for (int64_t length = 1 + below(5); length > 0; length--) {
      const int rank = x.rank(), axis = static_cast<int>(below(rank));
      const int64_t extent = x.extent(axis);
      switch (below(5)) {
        case 0: {
          const int other = static_cast<int>(below(rank));
          std::vector<int> order;
          for (int i = 0; i < rank; i++) order.push_back(i == axis ? other : i == other ? axis : i);
          x = x.permute(order), a = permuted(a, order);
          break;
        }
        case 1: {
          const int64_t from = below(extent), step = 1 + below(2);
          x = x.slice(axis, from, extent, step), a = sliced(a, axis, from, extent, step);
          break;
        }
        case 2: {
          Shape to = x.shape();
          if (extent == 1) to[axis] = 3;
          x = x.expand(to), a = binary(a, Array(to), std::plus<>());
          break;
        }
        case 3: {
          if (rank < 6) x = x.unsqueeze(axis), a.shape = a.shape.leading(axis) + Shape{1} + a.shape.slice(axis, rank);
          break;
        }
        default: {
          Shape to = x.shape().leading(axis);
          to.push_back(x.shape().slice(axis, rank).elements());
          x = x.reshape(to), a.shape = to;
        }
      }
    }
    CAPTURE(run, x.shape().str(), x.strides().str());
    REQUIRE(same(to_array(x), a));
    bool in_order = true;
    int64_t expected = 0;
    x.for_each_offset([&](int64_t offset) { in_order &= offset == expected++; });
    REQUIRE(x.is_contiguous() == in_order);
  }
}

TEST_CASE("contiguous and clone copy when they must") {
  const Tensor x = counted({2, 3});
  CHECK(shares(x.contiguous(), x));
  CHECK_FALSE(shares(x.clone(), x));
  const Tensor turned = x.transpose(0, 1).contiguous();
  CHECK(turned.is_contiguous());
  CHECK(turned.to_vector<float>() == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(counted({1, 3}).transpose(0, 1).is_contiguous());  // strides of axes of extent 1 do not matter
}

TEST_CASE("element types convert, whatever the layout") {
  const Array a = make({3, 4}, [](const Shape& i) { return static_cast<double>(i[0] * 50 + i[1]); });
  for (const Layout layout : {Layout::contiguous, Layout::sliced, Layout::transposed})
    for (const DType from : {DType::float32, DType::float64, DType::int64, DType::uint8})
      for (const DType to : {DType::float32, DType::float64, DType::int64, DType::uint8})
        CHECK(same(to_array(place(a, from, layout).to(to)), a));
  CHECK(Tensor::full({1}, 0.1, DType::float64).to(DType::float32).item() == static_cast<double>(0.1F));
  CHECK(Tensor::full({1}, -2.7, DType::float64).to(DType::int64).item() == -2);
}

TEST_CASE("writing through a view changes the elements that it shows, and no others") {
  Tensor x = Tensor::zeros({3, 4});
  const uint64_t before = x.storage()->version();
  x.slice(1, 1, 4, 2).fill(5);
  CHECK(x.to_vector<float>() == std::vector<float>{0, 5, 0, 5, 0, 5, 0, 5, 0, 5, 0, 5});
  x.slice(0, 2, 3).copy_from(Tensor::from<int64_t>({1}, {7}));
  CHECK(x.to_vector<float>() == std::vector<float>{0, 5, 0, 5, 0, 5, 0, 5, 7, 7, 7, 7});
  x.transpose(0, 1).copy_from(counted({4, 3}));
  CHECK(x.to_vector<float>() == std::vector<float>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11});
  CHECK(x.storage()->version() > before);
  const uint64_t after = x.storage()->version();
  (void)x.data<float>();
  CHECK(x.storage()->version() == after);
  (void)x.mutable_data<float>();
  CHECK(x.storage()->version() > after);
  CHECK_THROWS_AS(x.copy_from(counted({2, 4})), Error);
}

TEST_CASE("offsets are visited in row-major order") {
  const Tensor x = counted({3, 4}).slice(1, 1, 4, 2).transpose(0, 1);
  std::vector<float> seen;
  x.for_each_offset([&](int64_t offset) { seen.push_back(x.data<float>()[offset]); });
  CHECK(seen == x.to_vector<float>());
  int calls = 0;
  Tensor::scalar(1).for_each_offset([&](int64_t offset) { calls += offset == 0; });
  CHECK(calls == 1);
}

TEST_CASE("shapes broadcast from the right, over axes of extent 1") {
  CHECK(broadcast({2, 1, 4}, {3, 1}, "test") == Shape{2, 3, 4});
  CHECK(broadcast({}, {3, 1}, "test") == Shape{3, 1});
  CHECK(broadcast({0, 3}, {1, 3}, "test") == Shape{0, 3});
  CHECK_THROWS_WITH(broadcast({2, 3}, {2}, "test"), Contains("test: shapes [2, 3] and [2] do not broadcast"));
  CHECK(contiguous_strides({2, 3, 4}) == Shape{12, 4, 1});
  CHECK((Shape{2, 3} + Shape{4}).str() == "[2, 3, 4]");
  CHECK_THROWS_WITH(Shape({2, 3})[2], Contains("axis 2 of a shape of rank 2"));
}
