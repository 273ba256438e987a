// The extents of a tensor: up to eight 64-bit numbers, held in place.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "engine/error.h"

namespace fastntk {

constexpr int max_rank = 8;

/// A list of at most eight 64-bit integers; used for shapes and for strides. Axes may be counted from the back: -1 is
/// the last.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) : Shape(std::span<const int64_t>(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const int64_t> extents) {
    for (const int64_t e : extents) push_back(e);
  }
  static Shape filled(int rank, int64_t value) {
    Shape s;
    for (int i = 0; i < rank; i++) s.push_back(value);
    return s;
  }

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return extents_[index(axis)]; }
  int64_t& operator[](int axis) { return extents_[index(axis)]; }
  const int64_t* begin() const { return extents_.data(); }
  const int64_t* end() const { return extents_.data() + rank_; }
  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) return false;
    for (int i = 0; i < rank_; i++)
      if (extents_[i] != other.extents_[i]) return false;
    return true;
  }

  void push_back(int64_t extent) {
    require(rank_ < max_rank, "a tensor has at most {} axes", max_rank);
    extents_[rank_++] = extent;
  }
  /// The number of elements; 1 for rank 0.
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; i++) n *= extents_[i];
    return n;
  }
  /// Axes [from, to).
  Shape slice(int from, int to) const {
    return Shape(std::span<const int64_t>(extents_.data() + from, static_cast<size_t>(to - from)));
  }
  Shape leading(int count) const { return slice(0, count); }
  Shape trailing(int count) const { return slice(rank_ - count, rank_); }
  /// The axes of this shape followed by those of `tail`.
  Shape operator+(const Shape& tail) const {
    Shape s = *this;
    for (const int64_t e : tail) s.push_back(e);
    return s;
  }
  /// "[2, 3, 4]"
  std::string str() const {
    std::string s = "[";
    for (int i = 0; i < rank_; i++) s += (i ? ", " : "") + std::to_string(extents_[i]);
    return s + "]";
  }

 private:
  int index(int axis) const {
    const int i = axis < 0 ? axis + rank_ : axis;
    require(i >= 0 && i < rank_, "axis {} of a shape of rank {}", axis, rank_);
    return i;
  }
  std::array<int64_t, max_rank> extents_{};
  int rank_ = 0;
};

/// Row-major strides, in elements.
inline Shape contiguous_strides(const Shape& shape) {
  Shape strides = Shape::filled(shape.rank(), 1);
  for (int i = shape.rank() - 2; i >= 0; i--) strides[i] = strides[i + 1] * shape[i + 1];
  return strides;
}

/// Right-aligned broadcasting over axes of extent 1; extra leading axes of either side pass through.
/// `where` names the caller in the error.
inline Shape broadcast(const Shape& a, const Shape& b, const char* where) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape out = longer;
  const int lead = longer.rank() - shorter.rank();
  for (int i = 0; i < shorter.rank(); i++) {
    const int64_t x = longer[lead + i], y = shorter[i];
    require(x == y || x == 1 || y == 1, "{}: shapes {} and {} do not broadcast", where, a.str(), b.str());
    out[lead + i] = x == 1 ? y : x;
  }
  return out;
}

}  // namespace fastntk
