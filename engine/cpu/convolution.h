// Two-dimensional convolution with fixed weights: which kernel serves which shape, and the weights in that kernel's
// layout.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/convolution_shape.h"
#include "engine/cpu/dispatch.h"

namespace fastntk::cpu {

/// Error if the shape is not a convolution's: positive extents, groups that divide the channels, a kernel that fits.
void require_convolution(const ConvolutionShape& shape);

/// One way to compute a convolution or its input gradient; holds its weights. All functions may be called from several
/// threads.
template <class T>
class ConvolutionKernel {
 public:
  virtual ~ConvolutionKernel() = default;
  virtual void run(int64_t images, const T* in, T* out) const = 0;
  virtual const char* name() const = 0;
  virtual size_t bytes() const = 0;
};

/// A linear map from images to images, T = float or double, made from the weights of a convolution.
///
/// Every element of the result is one fixed sequence of operations: an image gives the same bits alone as in any batch,
/// with any number of threads. Different kernels (and `exact` and `fast`) round differently.
template <class T>
class PackedConvolution {
 public:
  /// y = conv(x) of weights[out_channels, in_channels / groups, kernel_height, kernel_width]: run() reads
  /// [images, height, width, in_channels] and writes [images, out_height, out_width, out_channels].
  /// Throws Error if the shape is not a convolution's. `isa` may be narrower than the processor's, for comparison.
  static PackedConvolution forward(const ConvolutionShape& shape, const T* weights, ConvolutionAlgorithm algorithm,
                                   Isa isa = cpu::isa());
  /// The adjoint of forward(): run() reads dy[images, out_height, out_width, out_channels] and writes
  /// dx[images, height, width, in_channels].
  static PackedConvolution input_gradient(const ConvolutionShape& shape, const T* weights,
                                          ConvolutionAlgorithm algorithm, Isa isa = cpu::isa());

  /// Overwrites out. The images are spread over the threads by parallel_for.
  void run(int64_t images, const T* in, T* out) const { kernel_->run(images, in, out); }
  /// "winograd F(4x4)", "direct 3x3 stride 2", "pointwise", "depthwise", "unfold", ...
  const char* kernel() const { return kernel_->name(); }
  /// Memory of the packed weights.
  size_t bytes() const { return kernel_->bytes(); }

 private:
  explicit PackedConvolution(std::shared_ptr<const ConvolutionKernel<T>> kernel) : kernel_(std::move(kernel)) {}
  std::shared_ptr<const ConvolutionKernel<T>> kernel_;
};

}  // namespace fastntk::cpu
