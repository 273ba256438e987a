// A reader of Python pickles that builds data and never runs code: what a pickle would have Python call is refused by
// name, but for what the caller lists. https://github.com/python/cpython/blob/main/Lib/pickletools.py describes the
// format.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fastntk {

/// The place of a value in its Pickle. Values may be shared, and may contain themselves.
using PickleRef = uint32_t;

struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,
    integer,
    real,
    text,
    bytes,
    list,
    tuple,
    dict,        ///< items: key, value, key, value, …; collections.OrderedDict too
    global,      ///< text: a name such as "torch.FloatStorage", one of those allowed
    call,        ///< items: a global and the tuple of its arguments; nothing has been called
    persistent,  ///< items: the id of something that is stored outside the pickle
    mark         ///< does not occur in a finished pickle
  };
  Kind kind = Kind::none;
  int64_t integer = 0;  ///< of a boolean 0 or 1
  double real = 0;
  std::string text;
  std::vector<PickleRef> items;
};

/// The values of a pickle.
class Pickle {
 public:
  const PickleValue& operator[](PickleRef at) const { return values_[at]; }
  const PickleValue& root() const { return values_[root_]; }

 private:
  friend class Unpickler;
  std::vector<PickleValue> values_;
  PickleRef root_ = 0;
};

/// "a dictionary", "a string", …, for errors; globals and calls with their name.
std::string describe(const Pickle& pickle, const PickleValue& value);

/// Reads a pickle of protocol 2 to 5. It is treated as hostile: a truncated or malformed one, one of more than four
/// million values, and one that refers to a global that is not in `globals` ("module.name"; collections.OrderedDict is
/// known without being listed) are an Error that begins with `source`. The attributes of objects (BUILD) are dropped.
Pickle unpickle(std::span<const std::byte> bytes, std::span<const std::string_view> globals, const std::string& source);

}  // namespace fastntk
