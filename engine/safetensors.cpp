#include "engine/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/quoted.h"

namespace fastntk {
namespace {

using json = nlohmann::json;

// The file: 8 bytes with the length of the header, the header (JSON, padded with spaces), the data.
constexpr int64_t length_bytes = 8;
constexpr int64_t largest_header = 100'000'000;  // as in the reference implementation
constexpr int64_t header_alignment = 8;
constexpr int64_t most_elements = int64_t{1} << 56;  // as in Tensor
constexpr const char* metadata_key = "__metadata__";

// Bytes of a tensor of this shape; -1 if there can be no such tensor. An extent of 0 counts as 1 in the bound, so that
// no product of extents (a stride) overflows either.
int64_t data_bytes(const Shape& shape, StoredType type) {
  int64_t bound = 1;
  for (const int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(bound, std::max<int64_t>(extent, 1), &bound) || bound >= most_elements)
      return -1;
  return shape.elements() * static_cast<int64_t>(size_of(type));
}

// Walks through the header's JSON without building it in memory. It has three levels:
// { name: { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] }, …, "__metadata__": { key: value, … } }
class HeaderParser : public nlohmann::json_sax<json> {
 public:
  HeaderParser(SafeTensorsHeader& header, const std::string& path) : header_(header), path_(path) {}

  bool start_object(size_t) override {
    if (level_ == Level::outside)
      level_ = Level::file;
    else if (level_ == Level::file && key_ == metadata_key)
      level_ = Level::metadata;
    else if (level_ == Level::file)
      level_ = Level::tensor, entry_ = {}, entry_.name = key_, dtype_.clear(), numbers_ = {}, given_ = {};
    else
      unexpected("an object");
    return true;
  }
  // Runs for every name of the file, so messages are built on failure only.
  bool key(std::string& key) override {
    if (level_ == Level::file) {
      if (!names_.insert(key).second) fail("{}: the header has two entries {}", path_, in_quotes(key));
      key_ = key;
    } else if (level_ == Level::metadata) {
      if (header_.metadata.contains(key)) fail("{}: the metadata have two entries {}", path_, in_quotes(key));
      metadata_key_ = key;
    } else {
      const auto at = std::find(fields.begin(), fields.end(), key);
      if (at == fields.end())
        fail("{}: tensor {} has a field {}; dtype, shape and data_offsets were expected", path_, in_quotes(key_),
             in_quotes(key));
      field_ = static_cast<size_t>(at - fields.begin());
      if (std::exchange(given_[field_], true))
        fail("{}: tensor {} has its field {} twice", path_, in_quotes(key_), key);
    }
    return true;
  }
  bool end_object() override {
    if (level_ == Level::tensor) finish_tensor();
    level_ = level_ == Level::file ? Level::outside : Level::file;
    return true;
  }
  bool string(std::string& value) override {
    if (level_ == Level::metadata)
      header_.metadata[metadata_key_] = value;
    else if (level_ == Level::tensor && field_ == dtype_field)
      dtype_ = value;
    else
      unexpected("a string");
    return true;
  }
  bool start_array(size_t) override {
    if (level_ != Level::tensor || field_ == dtype_field) unexpected("a list");
    level_ = Level::list;
    return true;
  }
  bool end_array() override {
    level_ = Level::tensor;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (level_ != Level::list) unexpected("a number");
    if (value > static_cast<uint64_t>(INT64_MAX))
      fail("{}: the {} of tensor {} has {}, which is too large", path_, fields[field_], in_quotes(key_), value);
    // Longer lists are errors in any case: counting them is enough.
    auto& numbers = numbers_[field_];
    if (numbers.size() <= max_rank) numbers.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool number_integer(int64_t value) override {
    if (level_ != Level::list) unexpected("a number");
    fail("{}: the {} of tensor {} has the negative number {}", path_, fields[field_], in_quotes(key_), value);
  }
  bool number_float(double, const std::string& text) override { unexpected("the number " + in_quotes(text)); }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a truth value"); }
  bool binary(json::binary_t&) override { unexpected("binary data"); }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    fail("{}: the header is not valid JSON from its byte {} on", path_, position);
  }

 private:
  enum class Level { outside, file, metadata, tensor, list };
  static constexpr std::array<const char*, 3> fields{"dtype", "shape", "data_offsets"};
  static constexpr size_t dtype_field = 0, shape_field = 1, offsets_field = 2;

  [[noreturn]] void unexpected(const std::string& what) const {
    if (level_ == Level::outside) fail("{}: the header is {}, an object was expected", path_, what);
    if (level_ == Level::file)
      fail("{}: the header's entry {} is {}, an object was expected", path_, in_quotes(key_), what);
    if (level_ == Level::metadata)
      fail("{}: the metadata's entry {} is {}, a string was expected", path_, in_quotes(metadata_key_), what);
    if (level_ == Level::list)
      fail("{}: the {} of tensor {} holds {}, a whole number was expected", path_, fields[field_], in_quotes(key_),
           what);
    fail("{}: the {} of tensor {} is {}, a {} was expected", path_, fields[field_], in_quotes(key_), what,
         field_ == dtype_field ? "string" : "list of whole numbers");
  }

  void finish_tensor() {
    const std::string name = in_quotes(entry_.name);
    for (size_t i = 0; i < fields.size(); i++) require(given_[i], "{}: tensor {} has no {}", path_, name, fields[i]);
    const auto type = stored_type(dtype_);
    require(type.has_value(), "{}: tensor {} has the type {}; {} can be read", path_, name, in_quotes(dtype_),
            stored_type_names());
    entry_.stored = *type;
    entry_.dtype = memory_type(*type);
    require(numbers_[shape_field].size() <= max_rank, "{}: tensor {} has more than {} axes", path_, name, max_rank);
    entry_.shape = Shape(numbers_[shape_field]);
    require(numbers_[offsets_field].size() == 2, "{}: the data_offsets of tensor {} are not two numbers", path_, name);
    entry_.begin = numbers_[offsets_field][0], entry_.end = numbers_[offsets_field][1];
    const int64_t bytes = data_bytes(entry_.shape, entry_.stored);
    require(bytes >= 0, "{}: tensor {} has the shape {}, which has too many elements", path_, name, entry_.shape.str());
    require(entry_.end >= entry_.begin && entry_.end - entry_.begin == bytes,
            "{}: tensor {} ({} {}) needs {} bytes, but its data_offsets are [{}, {}]", path_, name,
            name_of(entry_.stored), entry_.shape.str(), bytes, entry_.begin, entry_.end);
    header_.tensors.push_back(std::move(entry_));
  }

  SafeTensorsHeader& header_;
  const std::string& path_;
  Level level_ = Level::outside;
  std::set<std::string> names_;
  std::string key_, metadata_key_, dtype_;
  size_t field_ = 0;
  TensorEntry entry_;
  std::array<std::vector<int64_t>, 3> numbers_;
  std::array<bool, 3> given_{};
};

// The tensors must fill the data exactly.
void check_coverage(const SafeTensorsHeader& header, int64_t data_bytes, const std::string& path) {
  std::vector<const TensorEntry*> order;
  order.reserve(header.tensors.size());
  for (const TensorEntry& t : header.tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  int64_t covered = 0;
  for (const TensorEntry* t : order) {
    if (t->end > data_bytes)
      fail("{}: tensor {} ends at byte {} of the data, but the file has only {} (truncated?)", path, in_quotes(t->name),
           t->end, data_bytes);
    if (t->begin < covered)
      fail("{}: tensor {} begins at byte {} of the data, inside the tensor before it", path, in_quotes(t->name),
           t->begin);
    if (t->begin > covered)
      fail("{}: {} bytes of the data before tensor {} belong to no tensor", path, t->begin - covered,
           in_quotes(t->name));
    covered = t->end;
  }
  require(covered == data_bytes, "{}: {} bytes at the end belong to no tensor", path, data_bytes - covered);
}

// The header's length from the first 8 bytes.
int64_t header_length(std::span<const std::byte> start, int64_t file_size, const std::string& path) {
  uint64_t declared = 0;
  std::memcpy(&declared, start.data(), sizeof declared);
  require(declared <= static_cast<uint64_t>(largest_header),
          "{}: not a safetensors file: its header would have {} bytes", path, declared);
  const auto length = static_cast<int64_t>(declared);
  require(length <= file_size - length_bytes, "{}: the header should have {} bytes, the file has only {} (truncated?)",
          path, length, file_size - length_bytes);
  return length;
}

SafeTensorsHeader parse_text(std::string_view text, int64_t file_size, const std::string& path) {
  SafeTensorsHeader header;
  header.data_start = length_bytes + static_cast<int64_t>(text.size());
  HeaderParser parser(header, path);
  json::sax_parse(text, &parser);
  check_coverage(header, file_size - header.data_start, path);
  return header;
}

void check_size(int64_t file_size, const std::string& path) {
  require(file_size >= length_bytes, "{}: a safetensors file begins with 8 bytes, this file has {}", path, file_size);
}

SafeTensorsHeader read_header(const InputFile& file) {
  const std::string& path = file.path();
  check_size(file.size(), path);
  std::array<std::byte, length_bytes> start{};
  file.read(0, start);
  std::string text(static_cast<size_t>(header_length(start, file.size(), path)), '\0');
  file.read(length_bytes, std::as_writable_bytes(std::span(text)));
  return parse_text(text, file.size(), path);
}

std::string json_text(const std::string& text, const char* what, const std::string& path) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    fail("cannot write {}: the {} {} is not valid UTF-8", path, what, in_quotes(text));
  }
}

std::string header_text(const std::map<std::string, std::string>& metadata, const std::vector<TensorEntry>& tensors,
                        const std::string& path) {
  std::string text = "{";
  const auto separate = [&] {
    if (text.back() != '{') text += ',';
  };
  if (!metadata.empty()) {
    text += fmt::format("\"{}\":{{", metadata_key);
    for (const auto& [key, value] : metadata) {
      separate();
      text += json_text(key, "metadata key", path) + ':' + json_text(value, "metadata value", path);
    }
    text += '}';
  }
  for (const TensorEntry& t : tensors) {
    separate();
    text += json_text(t.name, "tensor name", path);
    text += fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name_of(t.stored),
                        fmt::join(t.shape, ","), t.begin, t.end);
  }
  text += '}';
  text.append(static_cast<size_t>(-static_cast<int64_t>(text.size()) & (header_alignment - 1)), ' ');
  require(text.size() <= static_cast<size_t>(largest_header), "cannot write {}: its header would have {} bytes", path,
          text.size());
  return text;
}

}  // namespace

SafeTensorsHeader read_safetensors_header(const std::string& path) { return read_header(InputFile(path)); }

SafeTensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source) {
  const auto size = static_cast<int64_t>(file.size());
  check_size(size, source);
  const auto text = file.subspan(length_bytes, static_cast<size_t>(header_length(file, size, source)));
  return parse_text({reinterpret_cast<const char*>(text.data()), text.size()}, size, source);
}

const Tensor* SafeTensors::find(std::string_view name) const {
  const auto at = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.first == name; });
  return at == tensors.end() ? nullptr : &at->second;
}

SafeTensors SafeTensors::load(const std::string& path) {
  const InputFile file(path);
  SafeTensorsHeader header = read_header(file);
  SafeTensors result;
  result.metadata = std::move(header.metadata);
  for (TensorEntry& entry : header.tensors) {
    Tensor tensor(entry.shape, entry.dtype);
    if (entry.stored == stored_type_of(entry.dtype)) {
      file.read(header.data_start + entry.begin, mutable_bytes_of(tensor));
    } else {
      std::vector<std::byte> stored(static_cast<size_t>(entry.end - entry.begin));
      file.read(header.data_start + entry.begin, stored);
      decode(stored, entry.stored, tensor);
    }
    result.tensors.emplace_back(std::move(entry.name), std::move(tensor));
  }
  return result;
}

void SafeTensors::save(const std::string& path, std::optional<StoredType> floating) const {
  std::vector<SafeTensorsWriter::Declaration> declarations;
  std::map<std::string_view, const Tensor*> by_name;
  for (const auto& [name, tensor] : tensors) {
    require(tensor.defined(), "cannot write {}: the tensor {} is undefined", path, in_quotes(name));
    declarations.push_back({name, tensor.dtype(), tensor.shape(), stored_as(name, tensor.dtype(), floating)});
    by_name[name] = &tensor;
  }
  SafeTensorsWriter writer(path, metadata, declarations);
  for (const TensorEntry& entry : writer.layout()) writer.append(entry.name, *by_name.at(entry.name));
  writer.commit();
}

SafeTensorsWriter::SafeTensorsWriter(const std::string& path, const std::map<std::string, std::string>& metadata,
                                     const std::vector<Declaration>& tensors)
    : file_(path) {
  std::vector<TensorEntry> entries;
  std::set<std::string> names{metadata_key};
  for (const Declaration& t : tensors) {
    require(names.insert(t.name).second, "cannot write {}: the tensor name {} is {}", path, in_quotes(t.name),
            t.name == metadata_key ? "reserved" : "used twice");
    const StoredType stored = t.stored.value_or(stored_type_of(t.dtype));
    require(data_bytes(t.shape, stored) >= 0, "cannot write {}: tensor {} cannot have the shape {}", path,
            in_quotes(t.name), t.shape.str());
    entries.push_back({t.name, stored, t.dtype, t.shape});
  }
  std::vector<size_t> order(entries.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return size_of(entries[a].stored) > size_of(entries[b].stored); });
  int64_t end = 0;
  for (const size_t i : order) {
    entries[i].begin = end;
    entries[i].end = end += data_bytes(entries[i].shape, entries[i].stored);
    layout_.push_back(entries[i]);
  }
  const std::string text = header_text(metadata, entries, path);
  const uint64_t length = text.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(text);
  skip_full();
}

void SafeTensorsWriter::skip_full() {
  while (current_ < layout_.size() && written_ == layout_[current_].end) current_++;
}

void SafeTensorsWriter::append(std::string_view name, const Tensor& part) {
  if (part.elements() == 0) return;
  require(current_ < layout_.size(), "{}: elements of {} came after all tensors were complete", file_.path(),
          in_quotes(name));
  const TensorEntry& entry = layout_[current_];
  require(entry.name == name, "{}: elements of tensor {} came where those of {} were expected", file_.path(),
          in_quotes(name), in_quotes(entry.name));
  require(part.dtype() == entry.dtype, "{}: tensor {} has the type {}, a part of {} came", file_.path(),
          in_quotes(name), name_of(entry.dtype), name_of(part.dtype()));
  const auto bytes = part.elements() * static_cast<int64_t>(size_of(entry.stored));
  require(bytes <= entry.end - written_, "{}: tensor {} {} got more elements than it has", file_.path(),
          in_quotes(name), entry.shape.str());
  if (entry.stored == stored_type_of(entry.dtype)) {
    const Tensor packed = part.contiguous();
    file_.write(bytes_of(packed));
  } else {
    file_.write(encode(part, entry.stored, in_quotes(name)));
  }
  written_ += bytes;
  skip_full();
}

void SafeTensorsWriter::commit() {
  require(current_ == layout_.size(), "cannot write {}: the elements of tensor {} are not all there", file_.path(),
          current_ < layout_.size() ? in_quotes(layout_[current_].name) : "");
  file_.commit();
}

}  // namespace fastntk
