// Files that appear complete or not at all, SHA-256, and .npy.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "engine/file.h"
#include "engine/npy.h"
#include "engine/sha256.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Matchers::Contains;

TEST_CASE("a file is read as it was written", "[file]") {
  const TemporaryFolder folder;
  const std::string path = folder / "a";
  const std::string text("line\n\0\xff", 7);
  write_file_atomically(path, text);
  CHECK(read_file(path) == text);
  write_file_atomically(path, "");
  CHECK(read_file(path).empty());
  CHECK(file_exists(path));
  CHECK_FALSE(file_exists(folder.path()));
  CHECK_FALSE(file_exists(folder / "b"));
  CHECK(folder.entries() == 1);

  const InputFile file(folder.write("c", "abc"));
  CHECK(file.size() == 3);
  std::string two(2, ' ');
  file.read(1, std::as_writable_bytes(std::span(two)));
  CHECK(two == "bc");
  CHECK_THROWS_WITH(file.read(2, std::as_writable_bytes(std::span(two))),
                    folder / "c" + ": the file ends at byte 3, 1 more were expected");
}

TEST_CASE("what cannot be read or written is named with the reason", "[file]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_file(folder / "none"), "cannot read " + (folder / "none") + ": No such file or directory");
  CHECK_THROWS_WITH(read_file(folder.path()), "cannot read " + folder.path() + ": it is a folder");
  CHECK_THROWS_WITH(read_file("/dev/null"), "cannot read /dev/null: it is not a regular file");
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(read_file(folder / "pipe"), Contains("not a regular file"));
  CHECK_THROWS_WITH(AtomicFile(folder / "no/file"),
                    "cannot write " + (folder / "no/file") + ": No such file or directory");
  CHECK_THROWS_WITH(AtomicFile(folder.path()),
                    "cannot write " + folder.path() + ": it exists and is not a regular file");
  CHECK_THROWS_WITH(AtomicFile("/dev/null"), "cannot write /dev/null: it exists and is not a regular file");
}

TEST_CASE("an uncommitted file leaves nothing, and the old one stays", "[file]") {
  const TemporaryFolder folder;
  const std::string path = folder.write("model", "old");
  {
    AtomicFile file(path);
    file.write("half");
    CHECK(read_file(path) == "old");
    CHECK(folder.entries() == 2);
    CHECK_THROWS_WITH(AtomicFile(path), "cannot write " + path + ": another process is writing it");
  }
  CHECK(read_file(path) == "old");
  CHECK(folder.entries() == 1);

  AtomicFile file(path);
  file.write("new ");
  file.write("content");
  file.commit();
  CHECK(read_file(path) == "new content");
  CHECK(folder.entries() == 1);
  CHECK_THROWS_AS(file.write("more"), Error);
  CHECK_THROWS_AS(file.commit(), Error);
}

TEST_CASE("a writer that was killed does not disturb the next one", "[file]") {
  const TemporaryFolder folder;
  const std::string path = folder / "model";
  const pid_t child = fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write("a long text that never became a file");
    _exit(0);  // no destructors, as after kill -9
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK_FALSE(file_exists(path));
  CHECK(file_exists(path + ".partial"));
  write_file_atomically(path, "short");
  CHECK(read_file(path) == "short");
  CHECK(folder.entries() == 1);
}

TEST_CASE("a symbolic link stays and its file is replaced", "[file]") {
  const TemporaryFolder folder;
  const std::string file = folder.write("file", "old"), link = folder / "link";
  REQUIRE(symlink("file", link.c_str()) == 0);
  write_file_atomically(link, "new");
  CHECK(read_file(file) == "new");
  CHECK(std::filesystem::is_symlink(link));
}

TEST_CASE("sha256", "[sha256]") {
  // The examples of FIPS 180-4.
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1000000, 'a');
  const std::string expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
  CHECK(sha256(million) == expected);
  Sha256 pieces;
  for (size_t at = 0; at < million.size(); at += 777) {
    pieces.add(std::string_view(million).substr(at, 777));
    if (at == 777) CHECK(pieces.hex() == sha256(million.substr(0, 1554)));
  }
  CHECK(pieces.hex() == expected);

  const TemporaryFolder folder;
  CHECK(sha256_of_file(folder.write("empty", "")) == sha256(""));
  const std::string large(3 * (1 << 20) + 5, 'x');
  CHECK(sha256_of_file(folder.write("large", large)) == sha256(large));
}

namespace {

// A .npy file of version 1 with this dictionary.
std::string npy(std::string dictionary, std::string_view data) {
  dictionary += '\n';
  const auto length = static_cast<uint16_t>(dictionary.size());
  return std::string("\x93NUMPY\x01\0", 8) + static_cast<char>(length & 255) + static_cast<char>(length >> 8) +
         dictionary + std::string(data);
}
constexpr const char* good = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";

}  // namespace

TEST_CASE(".npy round trips of every type and rank", "[npy]") {
  const TemporaryFolder folder;
  for (const DType dtype : {DType::float32, DType::float64, DType::int64, DType::uint8})
    for (const Shape& shape : {Shape{}, Shape{5}, Shape{2, 3}, Shape{0, 3}, Shape{1, 2, 1, 3, 1, 2, 1, 2}}) {
      Tensor t(shape, dtype);
      auto bytes = mutable_bytes_of(t);
      for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<std::byte>(i * 37);
      save_npy(folder / "a.npy", t);
      const Tensor back = load_npy(folder / "a.npy");
      CHECK(back.dtype() == dtype);
      CHECK(back.shape() == shape);
      const auto read = bytes_of(back);
      CHECK(std::equal(read.begin(), read.end(), bytes.begin(), bytes.end()));
      CHECK((std::filesystem::file_size(folder / "a.npy") - bytes.size()) % 64 == 0);
    }
  const Tensor t = Tensor::from<int64_t>({2, 3}, {1, 2, 3, 4, 5, 6});
  save_npy(folder / "t.npy", t.transpose(0, 1));
  CHECK(load_npy(folder / "t.npy").to_vector<int64_t>() == std::vector<int64_t>{1, 4, 2, 5, 3, 6});
}

TEST_CASE(".npy files as others write them", "[npy]") {
  const TemporaryFolder folder;
  const auto read = [&](const std::string& bytes) { return load_npy(folder.write("a.npy", bytes)); };
  CHECK(read(npy(good, "abcdef")).to_vector<uint8_t>() == std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'});
  const Tensor f = read(npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", "abcdef"));
  CHECK(f.shape() == Shape{2, 3});
  CHECK(f.to_vector<uint8_t>() == std::vector<uint8_t>{'a', 'c', 'e', 'b', 'd', 'f'});
  CHECK(read(npy("{\"shape\":(6,),\"fortran_order\":False,\"descr\":\"|u1\"}   ", "abcdef")).shape() == Shape{6});
  const std::string v2 = std::string("\x93NUMPY\x02\0", 8) + std::string("\x3c\0\0\0", 4) + good + "\n" + "abcdef";
  CHECK(read(v2).shape() == Shape{2, 3});
}

TEST_CASE("corrupt .npy files are refused with one sentence", "[npy]") {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& bytes) -> std::string {
    const std::string path = folder.write("bad.npy", bytes);
    try {
      load_npy(path);
    } catch (const Error& e) {
      const std::string what = e.what();
      CHECK(what.starts_with(path + ": "));
      CHECK(what.find('\n') == std::string::npos);
      return what.substr(path.size() + 2);
    }
    return "no error";
  };
  const auto header = [&](const std::string& dictionary) { return error(npy(dictionary, "abcdef")); };
  const std::string malformed = "the header is not a dictionary of descr, fortran_order and shape as NumPy writes it";
  CHECK(error("") == "not a .npy file: it does not begin as one");
  CHECK(error("PK\3\4 something else") == "not a .npy file: it does not begin as one");
  CHECK(error(std::string("\x93NUMPY\x03\0....", 12)) == ".npy format version 3.0; 1.0 and 2.0 can be read");
  CHECK(error(npy(good, "").substr(0, 40)) == "the header should have 60 bytes, the file has only 30 (truncated?)");
  CHECK(error(std::string("\x93NUMPY\x02\0\1\0", 10)) ==
        "the header should have 1 bytes, the file has only 0 (truncated?)");
  CHECK(error(std::string("\x93NUMPY\x02\0\xff\xff\xff\xff", 12)) == "its header would have 4294967295 bytes");
  CHECK(error(npy(good, "abcde")) == "an array of uint8 [2, 3] has 6 bytes, the file has 5 (truncated?)");
  CHECK(error(npy(good, "abcdefg")) ==
        "an array of uint8 [2, 3] has 6 bytes, the file has 7 (bytes left over at the end)");
  CHECK(header("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }") ==
        "its elements are of type >f4; <f4, <f8, <i8 and |u1 can be read");
  CHECK(header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }") ==
        "it holds records; a plain array was expected");
  CHECK(header("{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 3), }") ==
        "its shape [9223372036854775807, 3] has too many elements");
  CHECK(header("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 4611686018427387904, 4611686018427387904), }") ==
        "its shape [0, 4611686018427387904, 4611686018427387904] has too many elements");
  CHECK(header("{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775808,), }") ==
        "its shape has an extent that is too large");
  CHECK(header("{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }") ==
        "its array has more than 8 axes");
  for (const char* bad :
       {"", "{", "{}", "[]", "{'descr': '|u1'}", "{'descr': '|u1', 'fortran_order': False, 'shape': (-2, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 6, }", "{'descr': '|u1', 'fortran_order': 0, 'shape': (6,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (6,)} x",
        "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'more': 1}", "{'descr': 'a\nb'}", "{'descr"}) {
    INFO(bad);
    CHECK(header(bad) == malformed);
  }
}

TEST_CASE("no change of one byte of a .npy header does harm", "[npy]") {
  const TemporaryFolder folder;
  const std::string bytes = npy(good, "abcdef");
  const auto elements_read = [&](const std::string& changed) -> int64_t {
    try {
      return load_npy(folder.write("a.npy", changed)).elements();
    } catch (const Error&) {
      return -1;
    }
  };
  int refused = 0;
  for (size_t at = 0; at < bytes.size(); at++)
    for (const int value : {0, 1, 0x20, 0x27, 0x28, 0x39, 0x7f, 0xff}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(value);
      const int64_t elements = elements_read(changed);
      CHECK((elements == -1 || elements == 6));
      refused += elements == -1;
    }
  CHECK(refused > 300);
  for (size_t size = 0; size < bytes.size(); size++)
    CHECK_THROWS_AS(load_npy(folder.write("a.npy", bytes.substr(0, size))), Error);
}
