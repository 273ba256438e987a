#include "datasets/svhn.h"

#include <matio.h>

#include <memory>
#include <mutex>

#include "datasets/column_planes.h"
#include "datasets/locate.h"
#include "datasets/mat_check.h"
#include "engine/file.h"

namespace fastntk {
namespace {

constexpr int64_t side = 32, channels = 3;
constexpr int64_t best_ratio = 1032;  // of deflate

// libmatio reports what it meets to one function for the whole process; it is read under the mutex below.
std::mutex matio_mutex;
std::string matio_message;
void on_message(int, char* message) {
  if (matio_message.empty()) matio_message = message;
}

using MatFile = std::unique_ptr<mat_t, int (*)(mat_t*)>;
using MatArray = std::unique_ptr<matvar_t, void (*)(matvar_t*)>;

// An array of this name with its elements; `classes` says of what type they must be.
MatArray read_array(const MatFile& file, const char* name, const std::string& path, int64_t most_bytes) {
  Mat_Rewind(file.get());
  MatArray array(Mat_VarReadInfo(file.get(), name), Mat_VarFree);
  require(array != nullptr, "{}: it has no array {}", path, name);
  require(array->dims != nullptr && array->rank >= 2 && array->rank <= 4 && !array->isComplex,
          "{}: the array {} is not of 2 to 4 axes", path, name);
  int64_t bytes = static_cast<int64_t>(Mat_SizeOfClass(array->class_type));
  for (int axis = 0; axis < array->rank; axis++)
    require(!__builtin_mul_overflow(bytes, static_cast<int64_t>(array->dims[axis]), &bytes) && bytes <= most_bytes,
            "{}: the array {} would be larger than the file can hold", path, name);
  matio_message.clear();
  const int error = Mat_VarReadDataAll(file.get(), array.get());
  require(error == 0 && matio_message.empty() && array->data != nullptr && static_cast<int64_t>(array->nbytes) == bytes,
          "{}: the array {} is damaged ({})", path, name, matio_message.empty() ? "no elements" : matio_message);
  return array;
}

std::string extents_of(const MatArray& array) {
  std::string text;
  for (int axis = 0; axis < array->rank; axis++) text += (axis ? "x" : "") + std::to_string(array->dims[axis]);
  return text;
}

// Digits as MATLAB writes them, as double or uint8.
std::vector<int64_t> labels_of(const MatArray& y, const std::string& path) {
  require(y->rank == 2 && y->dims[1] == 1 && (y->class_type == MAT_C_DOUBLE || y->class_type == MAT_C_UINT8),
          "{}: the array y must be Nx1 of double or uint8, it is {}", path, extents_of(y));
  std::vector<int64_t> labels(y->dims[0]);
  for (size_t i = 0; i < labels.size(); i++) {
    const double digit = y->class_type == MAT_C_DOUBLE ? static_cast<const double*>(y->data)[i]
                                                       : static_cast<const uint8_t*>(y->data)[i];
    require(digit >= 1 && digit <= 10 && digit == static_cast<int>(digit), "{}: sample {} has the label {}, not 1-10",
            path, i, digit);
    labels[i] = static_cast<int64_t>(digit) % 10;
  }
  return labels;
}

}  // namespace

Dataset load_svhn_file(const std::string& path) {
  check_mat_file(path);
  const std::lock_guard lock(matio_mutex);
  Mat_LogInitFunc("fastntk", on_message);
  const MatFile file(Mat_Open(path.c_str(), MAT_ACC_RDONLY), Mat_Close);
  require(file != nullptr, "{}: libmatio cannot read it", path);
  const int64_t most_bytes = InputFile(path).size() * best_ratio;
  const std::vector<int64_t> labels = labels_of(read_array(file, "y", path, most_bytes), path);
  const MatArray x = read_array(file, "X", path, most_bytes);
  const auto count = static_cast<int64_t>(labels.size());
  // MATLAB drops a last axis of extent 1.
  require(x->class_type == MAT_C_UINT8 && x->rank >= 3 && x->dims[0] == side && x->dims[1] == side &&
              x->dims[2] == channels && (x->rank == 4 ? static_cast<int64_t>(x->dims[3]) : 1) == count,
          "{}: the array X must be uint8 32x32x3x{}, as y has it, it is {}", path, count, extents_of(x));
  const Tensor images = images_from_column_planes(static_cast<const uint8_t*>(x->data), count, side, channels);
  return Dataset("svhn", images, Tensor::from<int64_t>({count}, labels), 10);
}

Dataset load_svhn(const std::string& folder, Part part) {
  const std::string file = std::string(name_of(part)) + "_32x32.mat";
  return load_svhn_file(
      locate({"svhn", {file}, {"svhn", "SVHN"}, "http://ufldl.stanford.edu/housenumbers", false}, folder)[0]);
}

}  // namespace fastntk
