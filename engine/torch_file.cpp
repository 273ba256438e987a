#include "engine/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <set>

#include "engine/file.h"
#include "engine/pickle.h"
#include "engine/quoted.h"

namespace fastntk {
namespace {

using Kind = PickleValue::Kind;

constexpr int64_t largest_pickle = int64_t{1} << 28;
constexpr int deepest = 4;  // of a state dict in dictionaries

constexpr std::string_view rebuild_tensor = "torch._utils._rebuild_tensor_v2",
                           rebuild_parameter = "torch._utils._rebuild_parameter", size_class = "torch.Size";
constexpr std::array<std::pair<std::string_view, StoredType>, 10> storages{
    {{"torch.DoubleStorage", StoredType::f64},
     {"torch.FloatStorage", StoredType::f32},
     {"torch.HalfStorage", StoredType::f16},
     {"torch.BFloat16Storage", StoredType::bf16},
     {"torch.LongStorage", StoredType::i64},
     {"torch.IntStorage", StoredType::i32},
     {"torch.ShortStorage", StoredType::i16},
     {"torch.CharStorage", StoredType::i8},
     {"torch.ByteStorage", StoredType::u8},
     {"torch.BoolStorage", StoredType::boolean}}};

std::vector<std::string_view> known_globals() {
  std::vector<std::string_view> names{rebuild_tensor, rebuild_parameter, size_class};
  for (const auto& [name, type] : storages) names.push_back(name);
  return names;
}

// True if every element of a tensor of this shape, with these strides and this offset, lies among `elements` elements,
// and no product of its extents overflows.
bool view_fits(const Shape& shape, const Shape& strides, int64_t offset, int64_t elements) {
  constexpr int64_t most = int64_t{1} << 56;
  if (shape.rank() != strides.rank() || offset < 0 || offset > elements) return false;
  int64_t bound = 1, last = offset;
  bool empty = false;
  for (int i = 0; i < shape.rank(); i++) {
    const int64_t extent = shape[i], stride = strides[i];
    if (extent < 0 || stride < 0 || __builtin_mul_overflow(bound, std::max<int64_t>(extent, 1), &bound) ||
        bound >= most)
      return false;
    int64_t reach = 0;
    if (extent == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(extent - 1, stride, &reach) || __builtin_add_overflow(last, reach, &last)) {
      return false;
    }
  }
  return empty || last < elements;
}

// The view as a tensor of its own, in row-major order.
Tensor gathered(const Tensor& storage, const TorchTensor& t) {
  Tensor out(t.shape, storage.dtype());
  const std::byte* const from = bytes_of(storage).data();
  std::byte* to = mutable_bytes_of(out).data();
  const size_t size = size_of(storage.dtype());
  Shape at = Shape::filled(t.shape.rank(), 0);
  int64_t offset = t.offset;
  for (int64_t i = 0; i < out.elements(); i++, to += size) {
    std::memcpy(to, from + static_cast<size_t>(offset) * size, size);
    for (int axis = t.shape.rank() - 1; axis >= 0; axis--) {
      offset += t.strides[axis];
      if (++at[axis] < t.shape[axis]) break;
      offset -= at[axis] * t.strides[axis];
      at[axis] = 0;
    }
  }
  return out;
}

// Of extents of 1 the stride is of no account.
bool is_contiguous(const TorchTensor& t) {
  const Shape expected = contiguous_strides(t.shape);
  for (int i = 0; i < t.shape.rank(); i++)
    if (t.shape[i] != 1 && t.strides[i] != expected[i]) return false;
  return true;
}

class StateDict {
 public:
  StateDict(const Pickle& pickle, const std::string& source) : pickle_(pickle), source_(source) {}

  std::vector<TorchTensor> tensors() {
    const PickleValue& root = pickle_.root();
    if (root.kind != Kind::dict)
      fail("{}: holds {}, a dictionary of tensors was expected; save model.state_dict()", source_,
           describe(pickle_, root));
    const PickleValue* const dict = find(root, 0);
    if (!dict) fail("{}: holds no dictionary of tensors", source_);
    std::vector<TorchTensor> all;
    std::set<std::string> names;
    for (size_t i = 0; i < dict->items.size(); i += 2) {
      const PickleValue& key = pickle_[dict->items[i]];
      const PickleValue* const value = tensor_call(pickle_[dict->items[i + 1]]);
      if (!value) continue;
      if (key.kind != Kind::text) fail("{}: the name of a tensor is {}", source_, describe(pickle_, key));
      if (!names.insert(key.text).second) fail("{}: there are two tensors {}", source_, in_quotes(key.text));
      all.push_back(tensor(key.text, *value));
    }
    return all;
  }

 private:
  // The call that makes a tensor, itself or as that of a parameter; null for what is no tensor.
  const PickleValue* tensor_call(const PickleValue& value) const {
    const PickleValue* call = &value;
    for (int i = 0; i < 2 && call->kind == Kind::call; i++) {
      const std::string& function = pickle_[call->items[0]].text;
      const PickleValue& arguments = pickle_[call->items[1]];
      if (function == rebuild_tensor) return call;
      if (function != rebuild_parameter || arguments.items.empty()) return nullptr;
      call = &pickle_[arguments.items[0]];
    }
    return nullptr;
  }

  bool has_tensors(const PickleValue& dict) const {
    for (size_t i = 1; i < dict.items.size(); i += 2)
      if (tensor_call(pickle_[dict.items[i]])) return true;
    return false;
  }

  // The dictionary of tensors in `dict`: itself, else under a usual name, else the only one that has tensors.
  const PickleValue* find(const PickleValue& dict, int depth) const {
    if (has_tensors(dict)) return &dict;
    if (depth == deepest) return nullptr;
    for (const char* const usual : {"state_dict", "model", "model_state_dict"})
      if (const PickleValue* const inner = dictionary_under(dict, usual))
        if (const PickleValue* const found = find(*inner, depth + 1)) return found;
    std::set<const PickleValue*> seen;
    std::string names;
    const PickleValue* only = nullptr;
    for (size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleValue &key = pickle_[dict.items[i]], &value = pickle_[dict.items[i + 1]];
      if (value.kind != Kind::dict || !seen.insert(&value).second || !has_tensors(value)) continue;
      names += (only ? ", " : "") + (key.kind == Kind::text ? in_quotes(key.text) : describe(pickle_, key));
      if (only)
        fail("{}: has several dictionaries of tensors ({}, …), none of them under \"state_dict\" or \"model\"", source_,
             names);
      only = &value;
    }
    return only;
  }

  const PickleValue* dictionary_under(const PickleValue& dict, std::string_view name) const {
    for (size_t i = 0; i < dict.items.size(); i += 2) {
      const PickleValue &key = pickle_[dict.items[i]], &value = pickle_[dict.items[i + 1]];
      if (key.kind == Kind::text && key.text == name && value.kind == Kind::dict) return &value;
    }
    return nullptr;
  }

  int64_t integer(const std::string& name, const char* what, PickleRef at) const {
    const PickleValue& value = pickle_[at];
    if (value.kind != Kind::integer || value.integer < 0)
      fail("{}: the {} of tensor {} is {}, a number of 0 or more was expected", source_, what, in_quotes(name),
           value.kind == Kind::integer ? std::to_string(value.integer) : describe(pickle_, value));
    return value.integer;
  }

  Shape integers(const std::string& name, const char* what, PickleRef at) const {
    const PickleValue* list = &pickle_[at];
    if (list->kind == Kind::call && pickle_[list->items[0]].text == size_class) {  // torch.Size((2, 3))
      const PickleValue& arguments = pickle_[list->items[1]];
      if (arguments.items.size() == 1) list = &pickle_[arguments.items[0]];
    }
    if (list->kind != Kind::tuple && list->kind != Kind::list)
      fail("{}: the {} of tensor {} is {}, a tuple was expected", source_, what, in_quotes(name),
           describe(pickle_, *list));
    if (list->items.size() > max_rank) fail("{}: tensor {} has more than {} axes", source_, in_quotes(name), max_rank);
    Shape shape;
    for (const PickleRef item : list->items) shape.push_back(integer(name, what, item));
    return shape;
  }

  // _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, …)
  TorchTensor tensor(const std::string& name, const PickleValue& call) const {
    const PickleValue& arguments = pickle_[call.items[1]];
    if (arguments.items.size() < 4)
      fail("{}: tensor {} has {} arguments, at least 4 were expected", source_, in_quotes(name),
           arguments.items.size());
    TorchTensor t{.name = name};
    storage(pickle_[arguments.items[0]], t);
    t.offset = integer(name, "offset", arguments.items[1]);
    t.shape = integers(name, "shape", arguments.items[2]);
    t.strides = integers(name, "strides", arguments.items[3]);
    if (t.shape.rank() != t.strides.rank())
      fail("{}: tensor {} has the shape {} but the strides {}", source_, in_quotes(name), t.shape.str(),
           t.strides.str());
    if (!view_fits(t.shape, t.strides, t.offset, t.storage_elements))
      fail("{}: tensor {} (shape {}, strides {}, offset {}) leads outside its storage of {} elements", source_,
           in_quotes(name), t.shape.str(), t.strides.str(), t.offset, t.storage_elements);
    return t;
  }

  // ('storage', torch.FloatStorage, key, location, number of elements)
  void storage(const PickleValue& value, TorchTensor& t) const {
    const PickleValue& id = value.kind == Kind::persistent ? pickle_[value.items[0]] : value;
    if (value.kind != Kind::persistent || id.kind != Kind::tuple || id.items.size() != 5 ||
        pickle_[id.items[0]].text != "storage" || pickle_[id.items[2]].kind != Kind::text)
      fail("{}: the storage of tensor {} is not described as torch does", source_, in_quotes(t.name));
    const PickleValue& type = pickle_[id.items[1]];
    bool known = false;
    for (const auto& [name, stored] : storages)
      if (type.kind == Kind::global && type.text == name) t.type = stored, known = true;
    if (!known) fail("{}: the storage of tensor {} is {}", source_, in_quotes(t.name), describe(pickle_, type));
    t.storage = pickle_[id.items[2]].text;
    t.storage_elements = integer(t.name, "number of elements", id.items[4]);
  }

  const Pickle& pickle_;
  const std::string& source_;
};

}  // namespace

std::vector<TorchTensor> parse_torch_pickle(std::span<const std::byte> pickle, const std::string& source) {
  const Pickle values = unpickle(pickle, known_globals(), source);
  return StateDict(values, source).tensors();
}

TorchFile::TorchFile(ZipArchive archive) : archive_(std::move(archive)) {
  constexpr std::string_view pickle_name = "/data.pkl";
  int64_t pickle = -1;
  const auto& entries = archive_.entries();
  for (size_t i = 0; i < entries.size(); i++) {
    const std::string& name = entries[i].name;
    if (!name.ends_with(pickle_name) || name.find('/') != name.size() - pickle_name.size()) continue;
    if (pickle >= 0)
      fail("{}: the zip archive has two entries {} and {}", source(),
           in_quotes(entries[static_cast<size_t>(pickle)].name), in_quotes(name));
    pickle = static_cast<int64_t>(i);
  }
  require(pickle >= 0, "{}: a zip archive, but none of torch: it has no data.pkl", source());
  const ZipArchive::Entry& entry = entries[static_cast<size_t>(pickle)];
  folder_ = entry.name.substr(0, entry.name.size() - pickle_name.size());
  require(archive_.find(folder_ + "/constants.pkl") < 0,
          "{}: a TorchScript program; save the state dict of the model instead", source());
  if (const int64_t order = archive_.find(folder_ + "/byteorder"); order >= 0) {
    const auto text = archive_.read(order);
    const std::string_view name(reinterpret_cast<const char*>(text.data()), text.size());
    require(name == "little", "{}: its byte order is {}, little was expected", source(), in_quotes(name));
  }
  require(entry.size <= largest_pickle, "{}: its data.pkl has {} bytes; at most {} are expected", source(), entry.size,
          largest_pickle);
  tensors_ = parse_torch_pickle(archive_.read(pickle), source());
  std::set<std::string> storages;
  int64_t total = 0;
  for (const TorchTensor& t : tensors_) {
    const int64_t at = archive_.find(folder_ + "/data/" + t.storage);
    if (at < 0)
      fail("{}: there is no storage {}, which tensor {} needs", source(), in_quotes(t.storage), in_quotes(t.name));
    const int64_t bytes = archive_.entries()[static_cast<size_t>(at)].size;
    const auto size = static_cast<int64_t>(size_of(t.type));
    if (bytes % size != 0 || bytes / size != t.storage_elements)
      fail("{}: the storage of tensor {} should have {} elements of {}, but has {} bytes", source(), in_quotes(t.name),
           t.storage_elements, name_of(t.type), bytes);
    // Entries that lie over one another in the file could ask for any amount of memory.
    if (!storages.insert(t.storage).second) continue;
    require(bytes <= archive_.bytes() - total, "{}: its storages have more bytes than the file", source());
    total += bytes;
  }
}

std::vector<std::pair<std::string, Tensor>> TorchFile::load() const {
  std::map<std::pair<std::string, StoredType>, Tensor> read;
  std::vector<std::pair<std::string, Tensor>> tensors;
  int64_t copied = 0;
  for (const TorchTensor& t : tensors_) {
    Tensor& storage = read[{t.storage, t.type}];
    if (!storage.defined()) {
      const auto bytes = archive_.read(archive_.find(folder_ + "/data/" + t.storage));
      storage = Tensor({t.storage_elements}, memory_type(t.type));
      decode(bytes, t.type, storage);
    }
    const int64_t elements = t.shape.elements();
    if (is_contiguous(t) || elements == 0) {
      tensors.emplace_back(t.name, storage.slice(0, t.offset, t.offset + elements).reshape(t.shape));
      continue;
    }
    // Views that repeat elements, or many of one storage, could ask for any amount of memory.
    copied += elements;
    if (copied > archive_.bytes())
      fail(
          "{}: tensor {} (shape {}, strides {}) repeats elements of its storage; save it as "
          "a contiguous tensor",
          source(), in_quotes(t.name), t.shape.str(), t.strides.str());
    tensors.emplace_back(t.name, gathered(storage, t));
  }
  return tensors;
}

}  // namespace fastntk
