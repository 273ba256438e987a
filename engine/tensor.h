// Tensor: a value made of shared storage, shape, strides, offset and element type. Views never copy.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/dtype.h"
#include "engine/shape.h"
#include "engine/storage.h"

namespace fastntk {

/// A multi-dimensional array. Copying a Tensor copies the handle; `clone()` copies the elements. A default-constructed
/// Tensor is undefined; in the linear maps of the tape it stands for zero.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised elements.
  explicit Tensor(const Shape& shape, DType dtype = DType::float32, Device device = Device::cpu);

  static Tensor zeros(const Shape& shape, DType dtype = DType::float32, Device device = Device::cpu);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::float32, Device device = Device::cpu);
  template <class T>
  static Tensor from(const Shape& shape, std::span<const T> values);
  template <class T>
  static Tensor from(const Shape& shape, const std::vector<T>& values) {
    return from<T>(shape, std::span<const T>(values));
  }
  static Tensor scalar(double value, DType dtype = DType::float32, Device device = Device::cpu) {
    return full({}, value, dtype, device);
  }

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }
  int64_t offset() const { return offset_; }
  int64_t extent(int axis) const { return shape_[axis]; }
  int rank() const { return shape_.rank(); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device::cpu; }
  int64_t elements() const { return shape_.elements(); }
  /// Bytes of the elements this tensor shows (not of the storage behind it).
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype_); }
  bool is_contiguous() const;
  const std::shared_ptr<Storage>& storage() const { return storage_; }

  /// Host pointer to the first element. T must be the dtype. The elements need not be contiguous; see strides().
  template <class T>
  const T* data() const;
  /// Same, for writing: everything derived from the old contents becomes stale.
  template <class T>
  T* mutable_data();

  // Views. Axes may be negative (counted from the back).
  /// Same elements under another shape with as many elements; copies only if no view can do it.
  Tensor reshape(const Shape& shape) const;
  /// Axis i of the result is axis order[i] of this tensor.
  Tensor permute(std::span<const int> order) const;
  Tensor permute(std::initializer_list<int> order) const {
    return permute(std::span<const int>(order.begin(), order.size()));
  }
  Tensor transpose(int a, int b) const;
  /// Elements from, from+step, … below to, of one axis.
  Tensor slice(int axis, int64_t from, int64_t to, int64_t step = 1) const;
  /// One index of one axis, which is dropped.
  Tensor select(int axis, int64_t index) const;
  /// Axes of extent 1 repeated without copying (stride 0); extra leading axes are added.
  Tensor expand(const Shape& shape) const;
  /// A new axis of extent 1 before `axis`.
  Tensor unsqueeze(int axis) const;

  /// This tensor if it is contiguous, else a contiguous copy.
  Tensor contiguous() const;
  Tensor clone() const;
  /// Another element type; this tensor if it has it already.
  Tensor to(DType dtype) const;
  /// The elements in the memory of another device, contiguous; this tensor if it is there already.
  Tensor to(Device device) const;
  /// Copies the elements of `source` (same shape after broadcasting) into this tensor's storage.
  void copy_from(const Tensor& source);
  void fill(double value);
  /// The value of a one-element tensor, on the host.
  double item() const;
  /// All elements in row-major order, on the host.
  template <class T>
  std::vector<T> to_vector() const;

  /// Calls f(offset in elements) for every element in row-major order. For tests and small host loops.
  void for_each_offset(const std::function<void(int64_t)>& f) const;
  /// "float32 [2, 3]"
  std::string describe() const;

 private:
  std::shared_ptr<Storage> storage_;
  Shape shape_, strides_;
  int64_t offset_ = 0;
  DType dtype_ = DType::float32;
};

/// The rows of `source` (along its first axis) at these positions, copied. Error naming a position that is not there.
Tensor gather_rows(const Tensor& source, std::span<const int64_t> positions);
/// The same, but a view where the positions follow one another.
Tensor rows_at(const Tensor& source, std::span<const int64_t> positions);

}  // namespace fastntk
