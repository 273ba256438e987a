// The safetensors format: named tensors and string metadata in one file, as PyTorch and everyone else exchange them.
// https://github.com/huggingface/safetensors#format
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/file.h"
#include "engine/stored_type.h"
#include "engine/tensor.h"

namespace fastntk {

/// One tensor as the header describes it.
struct TensorEntry {
  std::string name;
  StoredType stored = StoredType::f32;
  DType dtype = DType::float32;  ///< in memory
  Shape shape;
  /// Bytes [begin, end) of the data, counted from the end of the header.
  int64_t begin = 0, end = 0;
};

/// What a file says about itself before its data.
struct SafeTensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<TensorEntry> tensors;  ///< in the order of the header
  int64_t data_start = 0;            ///< where the data begins in the file
};

/// Reads and checks the header alone. It is treated as hostile: its length is bounded, every name is unique, every
/// shape has the bytes it needs, and the tensors cover the data without gap, overlap or bytes left over; anything else
/// is an Error that names the file and the tensor. Types other than those of StoredType are refused by name.
SafeTensorsHeader read_safetensors_header(const std::string& path);
/// The same of a file that is in memory; `source` stands for its name in errors.
SafeTensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source);

/// How a tensor is stored when those of floating point are to be stored as `floating`. What a model file keeps beside
/// the weights, such as θ0, stays as exact as it is.
inline StoredType stored_as(const std::string& name, DType dtype, std::optional<StoredType> floating) {
  return floating && is_floating(dtype) && !name.starts_with("fastntk.") ? *floating : stored_type_of(dtype);
}

struct SafeTensors {
  std::map<std::string, std::string> metadata;
  std::vector<std::pair<std::string, Tensor>> tensors;

  /// The tensor of this name; null if there is none.
  const Tensor* find(std::string_view name) const;

  /// Reads all tensors, in the order of the header, in the types of memory_type.
  static SafeTensors load(const std::string& path);
  /// Writes the file atomically. The bytes depend on names, order, metadata and elements only. The header keeps the
  /// order given here; the data follows the reference implementation: widest type first, so that all is aligned.
  /// Tensors of floating point are converted to `floating` where it is given; an Error where one has too large a value.
  void save(const std::string& path, std::optional<StoredType> floating = std::nullopt) const;
};

/// Writes a file whose tensors need never be in memory as a whole: shapes first, then the elements piece by piece.
class SafeTensorsWriter {
 public:
  struct Declaration {
    std::string name;
    DType dtype = DType::float32;
    Shape shape;
    std::optional<StoredType> stored = std::nullopt;  ///< as in memory unless given
  };
  SafeTensorsWriter(const std::string& path, const std::map<std::string, std::string>& metadata,
                    const std::vector<Declaration>& tensors);

  /// Appends the elements of `part`, row-major, to the tensor that is being written, which must have this name, and go
  /// on with the next once it is full. Tensors are written in the order of layout(); parts have their type.
  void append(std::string_view name, const Tensor& part);
  /// The tensors in the order in which their data follows: by size of element, then as declared.
  const std::vector<TensorEntry>& layout() const { return layout_; }
  /// Gives the file its name; an Error if elements are missing.
  void commit();

 private:
  void skip_full();

  AtomicFile file_;
  std::vector<TensorEntry> layout_;
  size_t current_ = 0;   // in layout_
  int64_t written_ = 0;  // bytes of data
};

}  // namespace fastntk
