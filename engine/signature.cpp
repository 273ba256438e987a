#include "engine/signature.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>

#include "engine/descriptor.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/sha256.h"

namespace fastntk {
namespace {

constexpr size_t signature_bytes = 64;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

EVP_PKEY* of(const std::shared_ptr<void>& key) { return static_cast<EVP_PKEY*>(key.get()); }

std::shared_ptr<void> checked(EVP_PKEY* key, const std::string& path, const char* kind) {
  std::shared_ptr<void> held(key, [](void* p) { EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); });
  require(key != nullptr, "{} is not a {} key in PEM", path, kind);
  require(EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519, "{} is a key of another algorithm than Ed25519", path);
  return held;
}

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// A file that must not exist yet, readable as `mode` says, on the disk when it returns.
void write_new_file(const std::string& path, std::string_view text, mode_t mode) {
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  require_usage(descriptor >= 0 || errno != EEXIST, "{} exists; a key is never overwritten", path);
  require(descriptor >= 0, "cannot write {}: {}", path, std::strerror(errno));
  try {
    write_at(descriptor, path, 0, std::as_bytes(std::span(text)));
    if (const int reason = try_sync(descriptor)) fail("cannot write {} to the disk: {}", path, std::strerror(reason));
  } catch (...) {
    close(descriptor);
    unlink(path.c_str());
    throw;
  }
  close(descriptor);
  sync_folder_of(path);
}

std::string contents(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

}  // namespace

SignatureKey SignatureKey::read_private(const std::string& path) {
  const std::string text = read_file(path);
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free);
  return SignatureKey(checked(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr), path, "private"));
}

SignatureKey SignatureKey::read_public(const std::string& path) {
  const std::string text = read_file(path);
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free);
  return SignatureKey(checked(PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr), path, "public"));
}

void SignatureKey::make(const std::string& private_path, const std::string& public_path) {
  require_usage(!file_exists(public_path), "{} exists; a key is never overwritten", public_path);
  EVP_PKEY* const key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  require(key != nullptr, "libcrypto made no Ed25519 key");
  const std::shared_ptr<void> held(key, [](void* p) { EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); });
  const Bio secret(BIO_new(BIO_s_mem()), &BIO_free), open(BIO_new(BIO_s_mem()), &BIO_free);
  require(PEM_write_bio_PrivateKey(secret.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1 &&
              PEM_write_bio_PUBKEY(open.get(), key) == 1,
          "libcrypto cannot write an Ed25519 key as PEM");
  write_new_file(private_path, contents(secret.get()), 0600);
  write_new_file(public_path, contents(open.get()), 0666);
}

std::string SignatureKey::sign(std::string_view bytes) const {
  const DigestContext context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  std::array<unsigned char, signature_bytes> out{};
  size_t size = out.size();
  require(context && EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, of(key_)) == 1 &&
              EVP_DigestSign(context.get(), out.data(), &size, bytes_of(bytes), bytes.size()) == 1 &&
              size == signature_bytes,
          "libcrypto cannot sign; a private key is needed");
  std::string text;
  for (const unsigned char b : out) text += fmt::format("{:02x}", b);
  return text;
}

bool SignatureKey::fits(std::string_view bytes, const std::string& signature) const {
  std::array<unsigned char, signature_bytes> raw{};
  if (signature.size() != 2 * signature_bytes) return false;
  for (size_t i = 0; i < signature_bytes; i++) {
    const char* const digits = signature.data() + 2 * i;
    if (std::from_chars(digits, digits + 2, raw[i], 16).ptr != digits + 2) return false;
  }
  const DigestContext context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  return context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, of(key_)) == 1 &&
         EVP_DigestVerify(context.get(), raw.data(), raw.size(), bytes_of(bytes), bytes.size()) == 1;
}

std::string SignatureKey::fingerprint() const {
  std::array<unsigned char, 32> raw{};
  size_t size = raw.size();
  require(EVP_PKEY_get_raw_public_key(of(key_), raw.data(), &size) == 1 && size == raw.size(),
          "libcrypto cannot read the public key");
  return sha256(std::as_bytes(std::span(raw)));
}

}  // namespace fastntk
