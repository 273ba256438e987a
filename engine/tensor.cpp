#include "engine/tensor.h"

#include <algorithm>
#include <array>

#include "engine/backend.h"
#include "engine/device.h"

namespace fastntk {
namespace {

int from_front(int axis, int rank, const char* where) {
  const int i = axis < 0 ? axis + rank : axis;
  require(i >= 0 && i < rank, "{}: axis {} of a tensor of rank {}", where, axis, rank);
  return i;
}

}  // namespace

Tensor::Tensor(const Shape& shape, DType dtype, Device device) : shape_(shape), dtype_(dtype) {
  int64_t elements = 1;
  for (const int64_t e : shape) {
    require(e >= 0, "a tensor's extents cannot be negative: {}", shape.str());
    require(!__builtin_mul_overflow(elements, e, &elements) && elements < (int64_t{1} << 56),
            "the shape {} has too many elements", shape.str());
  }
  strides_ = contiguous_strides(shape);
  storage_ = std::make_shared<Storage>(static_cast<size_t>(elements) * size_of(dtype), device);
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) { return full(shape, 0, dtype, device); }

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t(shape, dtype, device);
  t.fill(value);
  return t;
}

template <class T>
Tensor Tensor::from(const Shape& shape, std::span<const T> values) {
  Tensor t(shape, dtype_of<T>());
  require(static_cast<int64_t>(values.size()) == t.elements(), "the shape {} has {} elements, got {} values",
          shape.str(), t.elements(), values.size());
  std::copy(values.begin(), values.end(), t.mutable_data<T>());
  return t;
}

bool Tensor::is_contiguous() const {
  if (elements() == 0) return true;
  int64_t expected = 1;
  for (int i = rank() - 1; i >= 0; i--) {
    if (shape_[i] != 1 && strides_[i] != expected) return false;
    expected *= shape_[i];
  }
  return true;
}

template <class T>
const T* Tensor::data() const {
  require(defined(), "an undefined tensor has no data");
  require(dtype_ == dtype_of<T>(), "a tensor of {} was read as {}", name_of(dtype_), name_of(dtype_of<T>()));
  require(device() == Device::cpu, "{} is in the memory of {}: what runs on the host alone needs it there, by to(cpu)",
          describe(), name_of(device()));
  return static_cast<const T*>(storage_->data()) + offset_;
}

template <class T>
T* Tensor::mutable_data() {
  T* const p = const_cast<T*>(data<T>());
  storage_->touch();
  return p;
}

Tensor Tensor::reshape(const Shape& shape) const {
  require(shape.elements() == elements(), "cannot reshape {} to {}: {} elements against {}", shape_.str(), shape.str(),
          elements(), shape.elements());
  Tensor view = *this;
  view.shape_ = shape;
  if (is_contiguous()) {
    view.strides_ = contiguous_strides(shape);
    return view;
  }
  // Walk both shapes from the back; each group of equal element counts must be evenly strided here.
  Shape strides = Shape::filled(shape.rank(), 0);
  int i = rank() - 1, j = shape.rank() - 1;
  while (j >= 0) {
    while (i >= 0 && shape_[i] == 1) i--;
    if (shape[j] == 1) {
      strides[j] = j + 1 < shape.rank() ? strides[j + 1] * shape[j + 1] : 1;
      j--;
      continue;
    }
    int64_t have = shape_[i], stride = strides_[i], want = shape[j];
    strides[j] = stride;
    while (have != want) {
      if (want < have) {
        require(j > 0, "reshape lost an axis");
        j--;
        strides[j] = strides[j + 1] * shape[j + 1];
        want *= shape[j];
      } else {
        const int before = i;
        do i--;
        while (i >= 0 && shape_[i] == 1);
        if (i < 0 || strides_[i] != strides_[before] * shape_[before]) return contiguous().reshape(shape);
        have *= shape_[i];
      }
    }
    i--, j--;
  }
  view.strides_ = strides;
  return view;
}

Tensor Tensor::permute(std::span<const int> order) const {
  require(static_cast<int>(order.size()) == rank(), "permute: {} axes given for a tensor of rank {}", order.size(),
          rank());
  Tensor view = *this;
  std::array<bool, max_rank> seen{};
  for (int i = 0; i < rank(); i++) {
    const int from = from_front(order[static_cast<size_t>(i)], rank(), "permute");
    require(!seen[static_cast<size_t>(from)], "permute: axis {} appears twice", from);
    seen[static_cast<size_t>(from)] = true;
    view.shape_[i] = shape_[from];
    view.strides_[i] = strides_[from];
  }
  return view;
}

Tensor Tensor::transpose(int a, int b) const {
  a = from_front(a, rank(), "transpose"), b = from_front(b, rank(), "transpose");
  Tensor view = *this;
  std::swap(view.shape_[a], view.shape_[b]);
  std::swap(view.strides_[a], view.strides_[b]);
  return view;
}

Tensor Tensor::slice(int axis, int64_t from, int64_t to, int64_t step) const {
  axis = from_front(axis, rank(), "slice");
  require(step > 0 && from >= 0 && from <= to && to <= shape_[axis], "slice [{}:{}:{}] of axis {} of {}", from, to,
          step, axis, shape_.str());
  Tensor view = *this;
  view.shape_[axis] = (to - from + step - 1) / step;
  view.strides_[axis] = strides_[axis] * step;
  if (view.shape_[axis] > 0) view.offset_ += from * strides_[axis];
  return view;
}

Tensor Tensor::select(int axis, int64_t index) const {
  axis = from_front(axis, rank(), "select");
  require(index >= 0 && index < shape_[axis], "index {} of axis {} of {}", index, axis, shape_.str());
  Tensor view = *this;
  view.offset_ += index * strides_[axis];
  view.shape_ = shape_.leading(axis) + shape_.slice(axis + 1, rank());
  view.strides_ = strides_.leading(axis) + strides_.slice(axis + 1, rank());
  return view;
}

Tensor Tensor::expand(const Shape& shape) const {
  const int lead = shape.rank() - rank();
  require(lead >= 0, "cannot expand {} to {}", shape_.str(), shape.str());
  Tensor view = *this;
  view.shape_ = shape;
  view.strides_ = Shape::filled(shape.rank(), 0);
  for (int i = 0; i < rank(); i++) {
    require(shape_[i] == shape[lead + i] || shape_[i] == 1, "cannot expand {} to {}", shape_.str(), shape.str());
    view.strides_[lead + i] = shape_[i] == shape[lead + i] ? strides_[i] : 0;
  }
  return view;
}

Tensor Tensor::unsqueeze(int axis) const {
  axis = axis < 0 ? axis + rank() + 1 : axis;
  require(axis >= 0 && axis <= rank(), "unsqueeze: no axis {} can be added to {}", axis, shape_.str());
  Tensor view = *this;
  view.shape_ = shape_.leading(axis) + Shape{1} + shape_.slice(axis, rank());
  view.strides_ =
      strides_.leading(axis) + Shape{axis < rank() ? shape_[axis] * strides_[axis] : 1} + strides_.slice(axis, rank());
  return view;
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::clone() const {
  Tensor copy(shape_, dtype_, device());
  backend_of(*this).copy(*this, copy);
  return copy;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor copy(shape_, dtype, device());
  backend_of(*this).copy(*this, copy);
  return copy;
}

Tensor Tensor::to(Device device) const {
  if (!defined() || device == this->device()) return *this;
  const Tensor packed = contiguous();
  if (this->device() != Device::cpu && device != Device::cpu) return packed.to(Device::cpu).to(device);
  Tensor copy(shape_, dtype_, device);
  const auto* const from =
      static_cast<const std::byte*>(packed.storage_->data()) + static_cast<size_t>(packed.offset_) * size_of(dtype_);
  if (elements() == 0) return copy;
  if (device == Device::cpu)
    device_memory(this->device()).copy_out(copy.storage_->data(), from, bytes());
  else
    device_memory(device).copy_in(copy.storage_->data(), from, bytes());
  return copy;
}

void Tensor::copy_from(const Tensor& source) {
  storage_->touch();
  backend_of(*this).copy(source.expand(shape_), *this);
}

void Tensor::fill(double value) {
  storage_->touch();
  backend_of(*this).fill(*this, value);
}

double Tensor::item() const {
  require(elements() == 1, "item() needs a tensor of one element, got {}", shape_.str());
  const Tensor here = to(Device::cpu);
  return for_any(dtype_, [&](auto zero) { return static_cast<double>(*here.data<decltype(zero)>()); });
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor packed = to(Device::cpu).contiguous();
  const T* const p = packed.data<T>();
  return std::vector<T>(p, p + packed.elements());
}

void Tensor::for_each_offset(const std::function<void(int64_t)>& f) const {
  Shape index = Shape::filled(rank(), 0);
  int64_t offset = 0;
  for (int64_t n = elements(); n > 0; n--) {
    f(offset);
    for (int axis = rank() - 1; axis >= 0; axis--) {
      offset += strides_[axis];
      if (++index[axis] < shape_[axis]) break;
      offset -= strides_[axis] * shape_[axis];
      index[axis] = 0;
    }
  }
}

std::string Tensor::describe() const { return std::string(name_of(dtype_)) + " " + shape_.str(); }

#define FASTNTK_INSTANTIATE(T)                                       \
  template Tensor Tensor::from<T>(const Shape&, std::span<const T>); \
  template const T* Tensor::data<T>() const;                         \
  template T* Tensor::mutable_data<T>();                             \
  template std::vector<T> Tensor::to_vector<T>() const;
FASTNTK_INSTANTIATE(float)
FASTNTK_INSTANTIATE(double)
FASTNTK_INSTANTIATE(int64_t)
FASTNTK_INSTANTIATE(uint8_t)
#undef FASTNTK_INSTANTIATE

Tensor gather_rows(const Tensor& source, std::span<const int64_t> positions) {
  Shape shape = source.shape();
  shape[0] = static_cast<int64_t>(positions.size());
  Tensor out(shape, source.dtype(), source.device());
  for (const int64_t p : positions)
    require(p >= 0 && p < source.extent(0), "row {} of {}, which has {}", p, source.describe(), source.extent(0));
  if (out.elements() == 0) return out;
  if (source.device() != Device::cpu) {
    Shape first = Shape::filled(source.rank(), 1);
    first[0] = shape[0];
    const Tensor index = Tensor::from<int64_t>(first, positions).to(source.device());
    backend_of(source).gather(source, -source.rank(), index.expand(shape), out);
    return out;
  }
  const Tensor rows = source.contiguous();
  const int64_t row = out.elements() / out.extent(0);
  for_any(out.dtype(), [&](auto zero) {
    const auto* const from = rows.data<decltype(zero)>();
    auto* to = out.mutable_data<decltype(zero)>();
    for (const int64_t p : positions) to = std::copy_n(from + p * row, row, to);
  });
  return out;
}

Tensor rows_at(const Tensor& source, std::span<const int64_t> positions) {
  for (size_t i = 1; i < positions.size(); i++)
    if (positions[i] != positions[0] + static_cast<int64_t>(i)) return gather_rows(source, positions);
  return positions.empty() ? gather_rows(source, positions) : source.slice(0, positions.front(), positions.back() + 1);
}

}  // namespace fastntk
