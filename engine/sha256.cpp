#include "engine/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <vector>

#include "engine/error.h"
#include "engine/file.h"

namespace fastntk {
namespace {

using Context = std::unique_ptr<void, void (*)(void*)>;

Context new_context() {
  return {EVP_MD_CTX_new(), [](void* p) { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(p)); }};
}
EVP_MD_CTX* of(const Context& context) { return static_cast<EVP_MD_CTX*>(context.get()); }

}  // namespace

Sha256::Sha256() : context_(new_context()) {
  require(context_ && EVP_DigestInit_ex(of(context_), EVP_sha256(), nullptr) == 1, "libcrypto offers no SHA-256");
}

Sha256& Sha256::add(std::span<const std::byte> bytes) {
  require(EVP_DigestUpdate(of(context_), bytes.data(), bytes.size()) == 1, "libcrypto failed to hash");
  return *this;
}

std::string Sha256::hex() const {
  const Context copy = new_context();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  require(copy && EVP_MD_CTX_copy_ex(of(copy), of(context_)) == 1 &&
              EVP_DigestFinal_ex(of(copy), digest.data(), &size) == 1,
          "libcrypto failed to hash");
  std::string text;
  for (unsigned i = 0; i < size; i++) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256(std::span<const std::byte> bytes) { return Sha256().add(bytes).hex(); }
std::string sha256(std::string_view text) { return Sha256().add(text).hex(); }

std::string sha256_of_file(const std::string& path) {
  const InputFile file(path);
  std::vector<std::byte> piece(static_cast<size_t>(std::min<int64_t>(file.size(), int64_t{1} << 20)));
  Sha256 hash;
  for (int64_t at = 0; at < file.size(); at += static_cast<int64_t>(piece.size())) {
    piece.resize(std::min(piece.size(), static_cast<size_t>(file.size() - at)));
    file.read(at, piece);
    hash.add(piece);
  }
  return hash.hex();
}

}  // namespace fastntk
