// Ed25519 signatures (RFC 8032) by libcrypto, with keys in PEM files as `openssl genpkey -algorithm ed25519` writes
// them.
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace fastntk {

/// A private or public key. An Error names the file where it cannot be read, is no PEM, or is of another algorithm.
class SignatureKey {
 public:
  static SignatureKey read_private(const std::string& path);
  static SignatureKey read_public(const std::string& path);
  /// A new pair of keys: the private one in a file that only its owner may read, the public one in another. Neither may
  /// exist.
  static void make(const std::string& private_path, const std::string& public_path);

  /// 128 hexadecimal digits. Needs the private key.
  std::string sign(std::string_view bytes) const;
  /// Whether `signature` is that of these bytes by this key.
  bool fits(std::string_view bytes, const std::string& signature) const;
  /// SHA-256 of the 32 bytes of the public key.
  std::string fingerprint() const;

 private:
  using Handle = std::shared_ptr<void>;  // EVP_PKEY
  explicit SignatureKey(Handle key) : key_(std::move(key)) {}
  Handle key_;
};

}  // namespace fastntk
