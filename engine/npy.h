// NumPy's .npy files. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once
#include <string>

#include "engine/file.h"
#include "engine/tensor.h"

namespace fastntk {

/// Reads a .npy file of format version 1 or 2 whose elements are <f4, <f8, <i8 or |u1 (float32, float64, int64,
/// uint8). An array in Fortran order is brought into row-major order. Anything else, a file that is too short or too
/// long included, is an Error that names the file.
Tensor load_npy(const std::string& path);
/// Writes a .npy file (version 1, C order) atomically.
void save_npy(const std::string& path, const Tensor& tensor);

/// Writes an array that need never be in memory as a whole.
class NpyWriter {
 public:
  NpyWriter(const std::string& path, DType dtype, const Shape& shape);
  /// The next elements, row-major.
  void append(const Tensor& part);
  /// Gives the file its name; an Error if elements are missing.
  void commit();

 private:
  AtomicFile file_;
  DType dtype_;
  int64_t missing_;
};

}  // namespace fastntk
