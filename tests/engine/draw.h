// Points, tangents and cotangents of the op tests, and how they lie in memory.
#pragma once
#include "engine/random.h"
#include "engine/samples.h"
#include "engine/tensor.h"

namespace fastntk::test {

/// `sliced`: every other element of a larger tensor whose other elements are NaN. `transposed`: axes in reverse order
/// of memory. `expanded`: one axis has stride 0 (so its values are equal), where an extent permits.
enum class Layout { contiguous, sliced, transposed, expanded };
const char* name_of(Layout layout);

/// A source of arrays that is the same in every run for the same name.
class Draws {
 public:
  explicit Draws(const std::string& name);
  /// An input's values; rounded to `dtype`, and equal along the repeated axis when the layout is `expanded`.
  Array input(const Input& input, Layout layout, DType dtype);
  /// A direction: normal numbers cut at ±4.
  Array direction(const Shape& shape, Layout layout, DType dtype);

 private:
  Random next() { return random_.stream(stream_++); }
  Random random_;
  uint64_t stream_ = 0;
};

/// The axis that `expanded` repeats, -1 if there is none.
int repeated_axis(const Shape& shape, int wanted = Input::first_axis);
/// The array as a tensor that lies in the memory of a device as told.
Tensor place(const Array& x, DType dtype, Layout layout, int repeated = Input::first_axis, Device device = Device::cpu);
Array to_array(const Tensor& t);

/// Elements [from, to) of axis 0 after `lead` stacked axes.
Array rows(const Array& x, int lead, int64_t from, int64_t to);
/// Element k of axis 0, which is dropped.
Array part(const Array& x, int64_t k);
double largest(const Array& x);

}  // namespace fastntk::test
