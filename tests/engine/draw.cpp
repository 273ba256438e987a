#include "engine/draw.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace fastntk::test {
namespace {

uint64_t hash(const std::string& name) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

double rounded(double x, DType dtype) {
  return dtype == DType::float32 ? static_cast<double>(static_cast<float>(x)) : x;
}

// f(i) for every element; along `repeated` all are equal to the first.
template <class F>
Array filled(const Shape& shape, int repeated, F&& f) {
  Shape small = shape;
  if (repeated >= 0) small[repeated] = 1;
  Array drawn(small);
  for (size_t i = 0; i < drawn.values.size(); i++) drawn.values[i] = f(static_cast<uint64_t>(i));
  return make(shape, [&](const Shape& index) { return drawn(index); });
}

}  // namespace

const char* name_of(Layout layout) {
  constexpr const char* names[] = {"contiguous", "sliced", "transposed", "expanded"};
  return names[static_cast<size_t>(layout)];
}

int repeated_axis(const Shape& shape, int wanted) {
  if (wanted != Input::first_axis) return wanted;
  for (int axis = 0; axis < shape.rank(); axis++)
    if (shape[axis] > 1) return axis;
  return -1;
}

Draws::Draws(const std::string& name) : random_(hash(name)) {}

Array Draws::input(const Input& input, Layout layout, DType dtype) {
  const Random random = next();
  const int repeated = layout == Layout::expanded ? repeated_axis(input.shape, input.repeated_axis) : -1;
  const int64_t n = input.shape.elements(), middle = n / 2;
  const auto order = input.draw == Draw::distinct ? random.stream(stream_++).permutation(n) : std::vector<int64_t>{};
  return filled(input.shape, repeated, [&](uint64_t i) {
    double x = random.normal(i);
    switch (input.draw) {
      case Draw::normal:
        break;
      case Draw::positive:
        x = 0.5 + 2 * random.uniform(i);
        break;
      case Draw::off_zero:
        x += x < 0 ? -0.05 : 0.05;
        break;
      case Draw::distinct:
        x = 0.04 * static_cast<double>(order[i] - middle) + 0.02 * random.uniform(i);
        break;
      case Draw::labels:
        return static_cast<double>(random.below(input.classes, i));
    }
    return rounded(x, dtype);
  });
}

Array Draws::direction(const Shape& shape, Layout layout, DType dtype) {
  const Random random = next();
  const int repeated = layout == Layout::expanded ? repeated_axis(shape) : -1;
  return filled(shape, repeated, [&](uint64_t i) { return rounded(std::clamp(random.normal(i), -4.0, 4.0), dtype); });
}

Tensor place(const Array& x, DType dtype, Layout layout, int repeated, Device device) {
  Tensor packed = Tensor::from<double>(x.shape, x.values).to(dtype).to(device);
  const int rank = x.shape.rank();
  Tensor view;
  if (layout == Layout::sliced && rank > 0) {
    Shape larger;
    for (const int64_t extent : x.shape) larger.push_back(2 * extent + 1);
    view = Tensor::full(larger, is_floating(dtype) ? std::numeric_limits<double>::quiet_NaN() : 1, dtype, device);
    for (int axis = 0; axis < rank; axis++) view = view.slice(axis, 1, 2 * x.shape[axis] + 1, 2);
  } else if (layout == Layout::transposed) {
    Shape reversed;
    std::vector<int> order;
    for (int axis = rank - 1; axis >= 0; axis--) reversed.push_back(x.shape[axis]), order.push_back(axis);
    view = Tensor(reversed, dtype, device).permute(order);
  } else if (layout == Layout::expanded && repeated_axis(x.shape, repeated) >= 0) {
    return packed.slice(repeated_axis(x.shape, repeated), 0, 1).clone().expand(x.shape);
  } else {
    return packed;
  }
  view.copy_from(packed);
  return view;
}

Array to_array(const Tensor& t) {
  Array out;
  out.shape = t.shape();
  out.values = t.to(DType::float64).to_vector<double>();
  return out;
}

Array rows(const Array& x, int lead, int64_t from, int64_t to) { return sliced(x, lead, from, to, 1); }

Array part(const Array& x, int64_t k) {
  Array out = sliced(x, 0, k, k + 1, 1);
  out.shape = x.shape.slice(1, x.shape.rank());
  return out;
}

double largest(const Array& x) {
  double m = 0;
  for (const double v : x.values) m = std::max(m, std::abs(v));
  return m;
}

}  // namespace fastntk::test
