#include "engine/npy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/file.h"

namespace fastntk {
namespace {

// The file: magic, two bytes of version, the length of the header (2 bytes in version 1, 4 in version 2), the header
// (a Python dictionary, padded with spaces so that the data are aligned), the data.
constexpr std::string_view magic = "\x93NUMPY";
constexpr size_t data_alignment = 64;
constexpr int64_t largest_header = 1 << 16;  // ours has at most 8 axes and no field names

struct TypeName {
  DType dtype;
  std::string_view name;
};
constexpr std::array<TypeName, 4> type_names{
    {{DType::float32, "<f4"}, {DType::float64, "<f8"}, {DType::int64, "<i8"}, {DType::uint8, "|u1"}}};

struct Header {
  DType dtype = DType::float32;
  bool fortran_order = false;
  Shape shape;
};

// Reads the literal NumPy writes, e.g. {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class DictionaryParser {
 public:
  DictionaryParser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  Header parse() {
    std::optional<DType> dtype;
    std::optional<bool> fortran_order;
    std::optional<Shape> shape;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr" && !dtype)
        dtype = type();
      else if (key == "fortran_order" && !fortran_order)
        fortran_order = truth_value();
      else if (key == "shape" && !shape)
        shape = tuple();
      else
        malformed();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size() || !dtype || !fortran_order || !shape) malformed();
    return {*dtype, *fortran_order, *shape};
  }

 private:
  [[noreturn]] void malformed() const {
    fail("{}: the header is not a dictionary of descr, fortran_order and shape as NumPy writes it", path_);
  }
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) at_++;
  }
  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    at_++;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) malformed();
  }
  std::string_view quoted() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : ' ';
    if (quote != '\'' && quote != '"') malformed();
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) malformed();
    const std::string_view inside = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return inside;
  }
  DType type() {
    skip_space();
    require(at_ == text_.size() || text_[at_] != '[', "{}: it holds records; a plain array was expected", path_);
    const std::string_view name = quoted();
    const bool clean = name.size() <= 16 && std::all_of(name.begin(), name.end(), [](char c) {
                         return std::isalnum(static_cast<unsigned char>(c)) ||
                                std::string_view("<>|=?").find(c) != std::string_view::npos;
                       });
    if (!clean) malformed();
    const auto at =
        std::find_if(type_names.begin(), type_names.end(), [&](const TypeName& t) { return t.name == name; });
    require(at != type_names.end(), "{}: its elements are of type {}; <f4, <f8, <i8 and |u1 can be read", path_, name);
    return at->dtype;
  }
  bool truth_value() {
    skip_space();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return value;
      }
    malformed();
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!accept(')')) {
      skip_space();
      int64_t extent = 0;
      const size_t start = at_;
      for (; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])); at_++)
        require(
            !__builtin_mul_overflow(extent, 10, &extent) && !__builtin_add_overflow(extent, text_[at_] - '0', &extent),
            "{}: its shape has an extent that is too large", path_);
      if (at_ == start) malformed();
      require(shape.rank() < max_rank, "{}: its array has more than {} axes", path_, max_rank);
      shape.push_back(extent);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view text_;
  const std::string& path_;
  size_t at_ = 0;
};

// Exactly as many elements as the file has bytes for. An extent of 0 counts as 1 in the bound, so that no product of
// extents (a stride) overflows.
void check_size(const Header& header, int64_t data_bytes, const std::string& path) {
  int64_t bound = static_cast<int64_t>(size_of(header.dtype));
  bool fits = true;
  for (const int64_t extent : header.shape)
    fits = fits && !__builtin_mul_overflow(bound, std::max<int64_t>(extent, 1), &bound) && bound < (int64_t{1} << 56);
  require(fits, "{}: its shape {} has too many elements", path, header.shape.str());
  const int64_t bytes = header.shape.elements() * static_cast<int64_t>(size_of(header.dtype));
  require(bytes == data_bytes, "{}: an array of {} {} has {} bytes, the file has {} ({})", path, name_of(header.dtype),
          header.shape.str(), bytes, data_bytes, data_bytes < bytes ? "truncated?" : "bytes left over at the end");
}

}  // namespace

Tensor load_npy(const std::string& path) {
  const InputFile file(path);
  std::array<unsigned char, 12> start{};
  const auto got = static_cast<size_t>(std::min<int64_t>(file.size(), start.size()));
  file.read(0, std::as_writable_bytes(std::span(start)).first(got));
  require(got >= 10 && std::memcmp(start.data(), magic.data(), magic.size()) == 0,
          "{}: not a .npy file: it does not begin as one", path);
  const int version = start[6];
  require((version == 1 || version == 2) && start[7] == 0, "{}: .npy format version {}.{}; 1.0 and 2.0 can be read",
          path, start[6], start[7]);
  const int64_t header_start = version == 1 ? 10 : 12;
  int64_t length = start[8] + 256 * start[9];
  if (version == 2) length += (int64_t{start[10]} << 16) + (int64_t{start[11]} << 24);
  require(length <= largest_header, "{}: its header would have {} bytes", path, length);
  require(length <= file.size() - header_start,
          "{}: the header should have {} bytes, the file has only {} (truncated?)", path, length,
          std::max<int64_t>(file.size() - header_start, 0));
  std::string text(static_cast<size_t>(length), '\0');
  file.read(header_start, std::as_writable_bytes(std::span(text)));
  const Header header = DictionaryParser(text, path).parse();
  check_size(header, file.size() - header_start - length, path);

  // Fortran order is row-major order with the axes reversed.
  std::vector<int64_t> extents(header.shape.begin(), header.shape.end());
  if (header.fortran_order) std::reverse(extents.begin(), extents.end());
  Tensor tensor(Shape(extents), header.dtype);
  file.read(header_start + length, mutable_bytes_of(tensor));
  if (!header.fortran_order) return tensor;
  std::vector<int> reversed(extents.size());
  std::iota(reversed.rbegin(), reversed.rend(), 0);
  return tensor.permute(reversed).contiguous();
}

NpyWriter::NpyWriter(const std::string& path, DType dtype, const Shape& shape)
    : file_(path), dtype_(dtype), missing_(shape.elements()) {
  const auto type =
      std::find_if(type_names.begin(), type_names.end(), [&](const TypeName& t) { return t.dtype == dtype; });
  std::string extents;
  for (const int64_t extent : shape) extents += (extents.empty() ? "" : ", ") + std::to_string(extent);
  if (shape.rank() == 1) extents += ",";
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type->name, extents);
  constexpr size_t start = 10;
  while ((start + header.size() + 1) % data_alignment != 0) header += ' ';
  header += '\n';

  file_.write(magic);
  const auto length = static_cast<uint16_t>(header.size());
  const std::array<uint8_t, 4> rest{1, 0, static_cast<uint8_t>(length & 255), static_cast<uint8_t>(length >> 8)};
  file_.write(std::as_bytes(std::span(rest)));
  file_.write(header);
}

void NpyWriter::append(const Tensor& part) {
  require(part.dtype() == dtype_ && part.elements() <= missing_, "{}: {} does not fit where {} elements of {} are left",
          file_.path(), part.describe(), missing_, name_of(dtype_));
  missing_ -= part.elements();
  file_.write(bytes_of(part.contiguous()));
}

void NpyWriter::commit() {
  require(missing_ == 0, "{}: {} elements were not written", file_.path(), missing_);
  file_.commit();
}

void save_npy(const std::string& path, const Tensor& tensor) {
  require(tensor.defined(), "cannot write {}: the tensor is undefined", path);
  NpyWriter writer(path, tensor.dtype(), tensor.shape());
  writer.append(tensor);
  writer.commit();
}

}  // namespace fastntk
