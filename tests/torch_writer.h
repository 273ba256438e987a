// Writes what torch.save writes, opcode by opcode, so that tests can also write it wrong.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace torch_writer {

template <class Number>
std::string little_endian(Number n) {
  std::string bytes(sizeof n, '\0');
  std::memcpy(bytes.data(), &n, sizeof n);
  return bytes;
}

// ---- pickles of protocol 2 ----

inline std::string text(std::string_view s) {
  return "X" + little_endian(static_cast<uint32_t>(s.size())) + std::string(s);
}
inline std::string integer(int64_t n) { return std::string("\x8a\x08", 2) + little_endian(n); }
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string all = "(";
  for (const std::string& item : items) all += item;
  return all + "t";
}
inline std::string integers(const std::vector<int64_t>& numbers) {
  std::vector<std::string> items;
  for (const int64_t n : numbers) items.push_back(integer(n));
  return tuple(items);
}
inline std::string dictionary(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string all = "}(";
  for (const auto& [key, value] : entries) all += text(key) + value;
  return all + "u";
}
/// An OrderedDict with an attribute, as Module.state_dict() is.
inline std::string state_dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string all = global("collections", "OrderedDict") + ")R(";
  for (const auto& [key, value] : entries) all += text(key) + value;
  return all + "u" + dictionary({{"_metadata", "}"}}) + "b";
}
inline std::string pickle(const std::string& value) { return "\x80\x02" + value + "."; }

struct View {
  std::string storage = "0", type = "FloatStorage";
  int64_t elements = 6, offset = 0;
  std::vector<int64_t> shape = {2, 3}, strides = {3, 1};
};
inline std::string tensor(const View& v) {
  const std::string storage =
      tuple({text("storage"), global("torch", v.type), text(v.storage), text("cpu"), integer(v.elements)}) + "Q";
  const std::string hooks = global("collections", "OrderedDict") + ")R";
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple({storage, integer(v.offset), integers(v.shape), integers(v.strides), "\x89", hooks}) + "R";
}

// ---- zip archives without compression ----

inline uint32_t crc32(std::string_view bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
  }
  return ~crc;
}

inline std::string archive(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string all, directory;
  for (const auto& [name, bytes] : entries) {
    const auto size = static_cast<uint32_t>(bytes.size());
    const std::string common = little_endian(uint16_t{20}) + std::string(8, '\0') + little_endian(crc32(bytes)) +
                               little_endian(size) + little_endian(size) +
                               little_endian(static_cast<uint16_t>(name.size())) + std::string(2, '\0');
    directory += std::string("PK\1\2\x14\0", 6) + common + std::string(10, '\0') +
                 little_endian(static_cast<uint32_t>(all.size())) + name;
    all += "PK\3\4" + common + name + bytes;
  }
  const auto count = static_cast<uint16_t>(entries.size());
  const std::string end = std::string("PK\5\6\0\0\0\0", 8) + little_endian(count) + little_endian(count) +
                          little_endian(static_cast<uint32_t>(directory.size())) +
                          little_endian(static_cast<uint32_t>(all.size())) + std::string(2, '\0');
  return all + directory + end;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace torch_writer
