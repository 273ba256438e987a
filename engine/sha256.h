// SHA-256, for the identity of data and weights.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace fastntk {

/// Hashes what is added to it, piece by piece; how it was cut into pieces does not matter.
class Sha256 {
 public:
  Sha256();
  Sha256& add(std::span<const std::byte> bytes);
  Sha256& add(std::string_view text) { return add(std::as_bytes(std::span(text))); }
  /// 64 lowercase hexadecimal digits of all that was added; more can be added afterwards.
  std::string hex() const;

 private:
  std::unique_ptr<void, void (*)(void*)> context_;
};

std::string sha256(std::span<const std::byte> bytes);
std::string sha256(std::string_view text);
/// Of a file's bytes, read in pieces.
std::string sha256_of_file(const std::string& path);

}  // namespace fastntk
