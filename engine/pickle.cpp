#include "engine/pickle.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "engine/error.h"
#include "engine/quoted.h"

namespace fastntk {

using Kind = PickleValue::Kind;

namespace {

constexpr size_t most_values = 4'000'000;
constexpr std::string_view ordered_dict = "collections.OrderedDict";

// The opcodes of protocols 2 to 5 that make data.
enum Opcode : uint8_t {
  op_mark = '(',
  op_stop = '.',
  op_pop = '0',
  op_pop_mark = '1',
  op_dup = '2',
  op_none = 'N',
  op_true = 0x88,
  op_false = 0x89,
  op_int4 = 'J',
  op_int1 = 'K',
  op_int2 = 'M',
  op_long1 = 0x8a,
  op_long4 = 0x8b,
  op_float = 'G',
  op_text4 = 'X',
  op_text1 = 0x8c,
  op_text8 = 0x8d,
  op_bytes4 = 'B',
  op_bytes1 = 'C',
  op_bytes8 = 0x8e,
  op_string4 = 'T',
  op_string1 = 'U',
  op_empty_list = ']',
  op_append = 'a',
  op_appends = 'e',
  op_list = 'l',
  op_empty_tuple = ')',
  op_tuple1 = 0x85,
  op_tuple2 = 0x86,
  op_tuple3 = 0x87,
  op_tuple = 't',
  op_empty_dict = '}',
  op_set_item = 's',
  op_set_items = 'u',
  op_dict = 'd',
  op_put1 = 'q',
  op_put4 = 'r',
  op_get1 = 'h',
  op_get4 = 'j',
  op_memoize = 0x94,
  op_protocol = 0x80,
  op_frame = 0x95,
  op_global = 'c',
  op_stack_global = 0x93,
  op_reduce = 'R',
  op_build = 'b',
  op_persistent = 'Q'
};

}  // namespace

std::string describe(const Pickle& pickle, const PickleValue& value) {
  switch (value.kind) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "a truth value";
    case Kind::integer:
      return "an integer";
    case Kind::real:
      return "a number";
    case Kind::text:
      return "a string";
    case Kind::bytes:
      return "bytes";
    case Kind::list:
      return "a list";
    case Kind::tuple:
      return "a tuple";
    case Kind::dict:
      return "a dictionary";
    case Kind::global:
      return value.text;
    case Kind::call:
      return pickle[value.items[0]].text + "(…)";
    case Kind::persistent:
      return "a persistent object";
    default:
      return "a mark";
  }
}

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> bytes, std::span<const std::string_view> globals, const std::string& source)
      : bytes_(bytes), globals_(globals), source_(source) {}

  Pickle run() {
    require(byte() == op_protocol, "{}: not a pickle: it does not begin with a protocol number", source_);
    const uint8_t protocol = byte();
    require(protocol >= 2 && protocol <= 5, "{}: its pickle has protocol {}; 2 to 5 can be read", source_, protocol);
    while (step(byte())) {
    }
    require(at_ == bytes_.size(), "{}: {} bytes follow the end of its pickle", source_, bytes_.size() - at_);
    pickle_.root_ = pop();
    require(stack_.empty(), "{}: its pickle is malformed: {} values are left over", source_, stack_.size());
    return std::move(pickle_);
  }

 private:
  // Carries out one opcode; false at the end.
  bool step(uint8_t op) {
    switch (op) {
      case op_stop:
        return false;
      case op_frame:
        number(8);  // the length of a frame is of use to who reads from a stream
        return true;
      case op_mark:
        push({.kind = Kind::mark});
        return true;
      case op_pop:
        require(!stack_.empty(), "{}: its pickle is malformed: nothing to take at byte {}", source_, at_ - 1);
        stack_.pop_back();
        return true;
      case op_pop_mark:
        take_to_mark();
        return true;
      case op_dup:
        push_again(top());
        return true;
      case op_put1:
        remember(static_cast<uint32_t>(number(1)));
        return true;
      case op_put4:
        remember(static_cast<uint32_t>(number(4)));
        return true;
      case op_memoize:
        remember(static_cast<uint32_t>(memo_.size()));
        return true;
      case op_get1:
        recall(static_cast<uint32_t>(number(1)));
        return true;
      case op_get4:
        recall(static_cast<uint32_t>(number(4)));
        return true;
      case op_build:
        build();
        return true;
      default:
        if (!scalar(op) && !text(op) && !container(op) && !reference(op))
          fail("{}: its pickle has the opcode 0x{:02x} at byte {}, which makes no plain data", source_, op, at_ - 1);
        return true;
    }
  }

  bool scalar(uint8_t op) {
    switch (op) {
      case op_none:
        push({});
        return true;
      case op_true:
      case op_false:
        push({.kind = Kind::boolean, .integer = op == op_true});
        return true;
      case op_int4:
        integer(static_cast<int32_t>(number(4)));
        return true;
      case op_int1:
        integer(static_cast<int64_t>(number(1)));
        return true;
      case op_int2:
        integer(static_cast<int64_t>(number(2)));
        return true;
      case op_long1:
        long_integer(number(1));
        return true;
      case op_long4:
        long_integer(number(4));
        return true;
      case op_float: {  // big-endian
        uint64_t bits = 0;
        for (const std::byte b : take(8)) bits = bits << 8 | static_cast<uint64_t>(b);
        push({.kind = Kind::real, .real = std::bit_cast<double>(bits)});
        return true;
      }
      default:
        return false;
    }
  }

  bool text(uint8_t op) {
    switch (op) {
      case op_text1:
      case op_string1:
        text_of(Kind::text, number(1));
        return true;
      case op_text4:
      case op_string4:
        text_of(Kind::text, number(4));
        return true;
      case op_text8:
        text_of(Kind::text, number(8));
        return true;
      case op_bytes1:
        text_of(Kind::bytes, number(1));
        return true;
      case op_bytes4:
        text_of(Kind::bytes, number(4));
        return true;
      case op_bytes8:
        text_of(Kind::bytes, number(8));
        return true;
      default:
        return false;
    }
  }

  bool container(uint8_t op) {
    switch (op) {
      case op_empty_list:
        push({.kind = Kind::list});
        return true;
      case op_list:
        push({.kind = Kind::list, .items = take_to_mark()});
        return true;
      case op_append:
        extend(Kind::list, {pop()});
        return true;
      case op_appends:
        extend(Kind::list, take_to_mark());
        return true;
      case op_empty_tuple:
        push({.kind = Kind::tuple});
        return true;
      case op_tuple1:
      case op_tuple2:
      case op_tuple3: {
        std::vector<PickleRef> items(static_cast<size_t>(op - op_tuple1) + 1);
        for (size_t i = items.size(); i-- > 0;) items[i] = pop();
        push({.kind = Kind::tuple, .items = std::move(items)});
        return true;
      }
      case op_tuple:
        push({.kind = Kind::tuple, .items = take_to_mark()});
        return true;
      case op_empty_dict:
        push({.kind = Kind::dict});
        return true;
      case op_dict:
        push({.kind = Kind::dict, .items = pairs()});
        return true;
      case op_set_item: {
        const PickleRef value = pop(), key = pop();
        extend(Kind::dict, {key, value});
        return true;
      }
      case op_set_items:
        extend(Kind::dict, pairs());
        return true;
      default:
        return false;
    }
  }

  bool reference(uint8_t op) {
    switch (op) {
      case op_global: {
        const std::string module = line(), name = line();
        global(module + "." + name);
        return true;
      }
      case op_stack_global: {
        const std::string name = text_at(pop()), module = text_at(pop());
        global(module + "." + name);
        return true;
      }
      case op_reduce: {
        const PickleRef arguments = pop(), function = pop();
        reduce(function, arguments);
        return true;
      }
      case op_persistent:
        push({.kind = Kind::persistent, .items = {pop()}});
        return true;
      default:
        return false;
    }
  }

  // ---- what opcodes do ----

  void global(std::string name) {
    if (name != ordered_dict && std::find(globals_.begin(), globals_.end(), name) == globals_.end())
      fail(
          "{}: refers to the Python object {}; only tensors, dictionaries, lists, numbers and strings are read, and no "
          "code is run",
          source_, in_quotes(name));
    push({.kind = Kind::global, .text = std::move(name)});
  }

  void reduce(PickleRef function, PickleRef arguments) {
    const PickleValue &f = pickle_[function], &a = pickle_[arguments];
    require(f.kind == Kind::global && a.kind == Kind::tuple,
            "{}: its pickle is malformed: {} is called with {} at byte {}", source_, describe(pickle_, f),
            describe(pickle_, a), at_ - 1);
    if (f.text != ordered_dict) return push({.kind = Kind::call, .items = {function, arguments}});
    // An OrderedDict is made empty and filled by SETITEMS, or, by Python 2, of one list of pairs.
    std::vector<PickleRef> items;
    if (!a.items.empty()) {
      const PickleValue& list = pickle_[a.items[0]];
      require(a.items.size() == 1 && list.kind == Kind::list && list.items.size() < most_values,
              "{}: its pickle is malformed: OrderedDict of {}", source_, describe(pickle_, list));
      for (const PickleRef entry : list.items) {
        const PickleValue& pair = pickle_[entry];
        require((pair.kind == Kind::list || pair.kind == Kind::tuple) && pair.items.size() == 2,
                "{}: its pickle is malformed: OrderedDict of {}", source_, describe(pickle_, pair));
        items.insert(items.end(), pair.items.begin(), pair.items.end());
      }
      // One list can be copied again and again: the copies count as values.
      copied_ += items.size();
      require(copied_ < most_values, "{}: its pickle has more than {} values", source_, most_values);
    }
    push({.kind = Kind::dict, .items = std::move(items)});
  }

  // Attributes, such as the versions of modules that torch hangs on a state dict, are of no use here.
  void build() {
    const PickleRef state = pop();
    const PickleValue& object = pickle_[top()];
    require(object.kind == Kind::dict && pickle_[state].kind == Kind::dict,
            "{}: its pickle sets attributes of {}, which is not done here", source_, describe(pickle_, object));
  }

  void extend(Kind kind, const std::vector<PickleRef>& items) {
    PickleValue& target = pickle_.values_[top()];
    require(target.kind == kind, "{}: its pickle is malformed: entries are added to {} at byte {}", source_,
            describe(pickle_, target), at_ - 1);
    target.items.insert(target.items.end(), items.begin(), items.end());
  }

  void long_integer(uint64_t length) {
    require(length <= 8, "{}: its pickle has an integer of {} bytes; 8 can be read", source_, length);
    const auto digits = take(length);
    uint64_t bits = 0;
    for (size_t i = 0; i < digits.size(); i++) bits |= static_cast<uint64_t>(digits[i]) << (8 * i);
    const bool negative = !digits.empty() && (digits.back() & std::byte{0x80}) != std::byte{0};
    if (negative && length < 8) bits |= ~uint64_t{0} << (8 * length);
    integer(static_cast<int64_t>(bits));
  }

  void integer(int64_t value) { push({.kind = Kind::integer, .integer = value}); }

  void text_of(Kind kind, uint64_t length) {
    const auto bytes = take(length);
    push({.kind = kind, .text = std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())});
  }

  void recall(uint32_t index) {
    const auto found = memo_.find(index);
    require(found != memo_.end(), "{}: its pickle is malformed: byte {} refers to what was not stored", source_,
            at_ - 1);
    push_again(found->second);
  }
  void remember(uint32_t index) {
    require(memo_.size() < most_values, "{}: its pickle stores more than {} values", source_, most_values);
    memo_[index] = top();
  }

  // ---- the stack ----

  void push(PickleValue value) {
    require(pickle_.values_.size() < most_values, "{}: its pickle has more than {} values", source_, most_values);
    stack_.push_back(static_cast<PickleRef>(pickle_.values_.size()));
    pickle_.values_.push_back(std::move(value));
  }
  // What is there already.
  void push_again(PickleRef value) {
    require(stack_.size() < 2 * most_values, "{}: its pickle has more than {} values", source_, most_values);
    stack_.push_back(value);
  }

  // A mark is no value: it is taken by what goes back to it, and by nothing else.
  PickleRef top() const {
    require(!stack_.empty() && pickle_[stack_.back()].kind != Kind::mark,
            "{}: its pickle is malformed: a value is missing at byte {}", source_, at_ - 1);
    return stack_.back();
  }
  PickleRef pop() {
    const PickleRef value = top();
    stack_.pop_back();
    return value;
  }
  std::vector<PickleRef> take_to_mark() {
    const auto mark =
        std::find_if(stack_.rbegin(), stack_.rend(), [&](PickleRef at) { return pickle_[at].kind == Kind::mark; });
    require(mark != stack_.rend(), "{}: its pickle is malformed: a mark is missing at byte {}", source_, at_ - 1);
    std::vector<PickleRef> items(mark.base(), stack_.end());
    stack_.resize(stack_.size() - items.size() - 1);
    return items;
  }
  std::vector<PickleRef> pairs() {
    std::vector<PickleRef> items = take_to_mark();
    require(items.size() % 2 == 0, "{}: its pickle is malformed: a key without a value at byte {}", source_, at_ - 1);
    return items;
  }

  std::string text_at(PickleRef at) const {
    const PickleValue& value = pickle_[at];
    require(value.kind == Kind::text, "{}: its pickle is malformed: a name is {}", source_, describe(pickle_, value));
    return value.text;
  }

  // ---- the bytes ----

  std::span<const std::byte> take(uint64_t count) {
    require(count <= bytes_.size() - at_, "{}: its pickle ends at byte {} where {} more were expected (truncated?)",
            source_, bytes_.size(), count - (bytes_.size() - at_));
    const auto taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }
  uint8_t byte() { return static_cast<uint8_t>(take(1)[0]); }
  uint64_t number(size_t size) {  // little-endian
    uint64_t value = 0;
    const auto bytes = take(size);
    for (size_t i = 0; i < size; i++) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    return value;
  }
  std::string line() {
    const auto rest = bytes_.subspan(at_);
    const auto end = std::find(rest.begin(), rest.end(), std::byte{'\n'});
    require(end != rest.end(), "{}: its pickle ends within a name (truncated?)", source_);
    const auto taken = take(static_cast<uint64_t>(end - rest.begin()));
    at_++;
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  std::span<const std::byte> bytes_;
  std::span<const std::string_view> globals_;
  const std::string& source_;
  size_t at_ = 0, copied_ = 0;
  Pickle pickle_;
  std::vector<PickleRef> stack_;
  std::unordered_map<uint32_t, PickleRef> memo_;
};

Pickle unpickle(std::span<const std::byte> bytes, std::span<const std::string_view> globals,
                const std::string& source) {
  return Unpickler(bytes, globals, source).run();
}

}  // namespace fastntk
