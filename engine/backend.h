// Kernel families: what a device must be able to do. Ops are written against these; adding an op almost never adds one.
#pragma once
#include <cstdint>

#include "engine/convolution_shape.h"
#include "engine/kernels/scalar.h"
#include "engine/tensor.h"

namespace fastntk {

enum class ReduceKind : uint8_t { sum, max };
enum class PoolKind : uint8_t { max, average };

/// Geometry of a pooling window; divisor of average pooling is the whole window (padding counts as zeros).
struct PoolShape {
  int64_t height = 0, width = 0, channels = 0;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_height = 1, stride_width = 1;
  int64_t padding_height = 0, padding_width = 0;
  int64_t out_height() const { return (height + 2 * padding_height - kernel_height) / stride_height + 1; }
  int64_t out_width() const { return (width + 2 * padding_width - kernel_width) / stride_width + 1; }
};

class Backend {
 public:
  virtual ~Backend() = default;

  // ---- map: element by element; inputs may have any strides, `out` is contiguous unless said otherwise ----
  /// out ← source, converting the type; `out` may have any strides. Shapes are equal.
  virtual void copy(const Tensor& source, Tensor& out) const = 0;
  virtual void fill(Tensor& out, double value) const = 0;
  virtual void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) const = 0;
  /// Inputs have been expanded to the shape of `out`.
  virtual void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) const = 0;
  /// Row-major index of the first element that is NaN or infinite, -1 if there is none.
  virtual int64_t first_non_finite(const Tensor& x) const = 0;

  // ---- reduce ----
  /// `out` has the rank of x, and extent 1 on the axes that are reduced. Sums run in a fixed order.
  virtual void reduce(ReduceKind kind, const Tensor& x, Tensor& out) const = 0;
};

/// The backend of a device.
const Backend& backend(Device device);
inline const Backend& backend_of(const Tensor& t) { return backend(t.device()); }

}  // namespace fastntk
