#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "engine/error.h"
#include "engine/file.h"
#include "engine/signature.h"
#include "temporary_folder.h"

using namespace fastntk;

TEST_CASE("Ed25519: the second test of RFC 8032, 7.1", "[signature]") {
  const TemporaryFolder folder;
  const auto secret =
      SignatureKey::read_private(folder.write("secret.pem",
                                              "-----BEGIN PRIVATE KEY-----\n"
                                              "MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n"
                                              "-----END PRIVATE KEY-----\n"));
  const auto open =
      SignatureKey::read_public(folder.write("open.pem",
                                             "-----BEGIN PUBLIC KEY-----\n"
                                             "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n"
                                             "-----END PUBLIC KEY-----\n"));
  const std::string signature =
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
  CHECK(secret.sign("\x72") == signature);
  CHECK(open.fits("\x72", signature));
  CHECK(secret.fits("\x72", signature));
  CHECK(open.fingerprint() == secret.fingerprint());
  CHECK_FALSE(open.fits("\x73", signature));
  CHECK_FALSE(open.fits("\x72", ""));
  CHECK_FALSE(open.fits("\x72", std::string(128, 'g')));
  for (size_t i = 0; i < signature.size(); i++) {
    std::string other = signature;
    other[i] = other[i] == '0' ? '1' : '0';
    CHECK_FALSE(open.fits("\x72", other));
  }
  CHECK_THROWS_WITH(open.sign("\x72"), Catch::Contains("private key is needed"));
  CHECK_THROWS_WITH(SignatureKey::read_private(folder / "open.pem"), Catch::Contains("open.pem is not a private key"));
  CHECK_THROWS_WITH(SignatureKey::read_public(folder / "secret.pem"),
                    Catch::Contains("secret.pem is not a public key"));
  CHECK_THROWS_WITH(SignatureKey::read_public(folder.write("empty.pem", "")), Catch::Contains("empty.pem"));
  CHECK_THROWS_WITH(SignatureKey::read_public(folder / "none.pem"), Catch::Contains("none.pem"));
  // A key for X25519.
  CHECK_THROWS_WITH(
      SignatureKey::read_public(folder.write("x.pem",
                                             "-----BEGIN PUBLIC KEY-----\n"
                                             "MCowBQYDK2VuAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n"
                                             "-----END PUBLIC KEY-----\n")),
      Catch::Contains("another algorithm than Ed25519"));
}

TEST_CASE("a new pair of keys", "[signature]") {
  const TemporaryFolder folder;
  SignatureKey::make(folder / "a.pem", folder / "a.pub.pem");
  SignatureKey::make(folder / "b.pem", folder / "b.pub.pem");
  const auto secret = SignatureKey::read_private(folder / "a.pem"),
             open = SignatureKey::read_public(folder / "a.pub.pem"),
             other = SignatureKey::read_public(folder / "b.pub.pem");
  CHECK(open.fits("text", secret.sign("text")));
  CHECK_FALSE(other.fits("text", secret.sign("text")));
  CHECK(open.fingerprint() != other.fingerprint());
  struct stat status {};
  REQUIRE(stat((folder / "a.pem").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600U);
  const std::string before = read_file(folder / "a.pem");
  CHECK_THROWS_AS(SignatureKey::make(folder / "a.pem", folder / "c.pub.pem"), UsageError);
  CHECK_THROWS_WITH(SignatureKey::make(folder / "c.pem", folder / "a.pub.pem"), Catch::Contains("exists"));
  CHECK(read_file(folder / "a.pem") == before);
  CHECK_FALSE(file_exists(folder / "c.pem"));
}
