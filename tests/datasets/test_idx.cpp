// idx files: what is read, and that nothing corrupt is.
#include <catch2/catch.hpp>
#include <numeric>

#include "datasets/byte_reader.h"
#include "datasets/environment.h"
#include "datasets/idx.h"
#include "datasets/refusal.h"
#include "datasets/registry.h"
#include "datasets/small_data.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Matchers::Contains;

namespace {

int64_t sum_of_bytes(const Tensor& t) {
  const uint8_t* const p = t.data<uint8_t>();
  return std::accumulate(p, p + t.elements(), int64_t{0});
}

}  // namespace

TEST_CASE("idx files are read, plain or compressed, whatever they are called", "[idx]") {
  const TemporaryFolder folder;
  const std::string images = idx_bytes({3, 2, 2}, "abcdefghijkl"), labels = idx_bytes({3}, std::string("\2\0\1", 3));
  for (const bool compressed : {false, true}) {
    const Dataset data = load_idx("letters", folder.write("images", compressed ? gzip(images) : images),
                                  folder.write("labels.gz", compressed ? labels : gzip(labels)));
    CHECK(data.name() == "letters");
    CHECK(data.images().shape() == Shape{3, 2, 2, 1});
    CHECK(data.images().to_vector<uint8_t>() ==
          std::vector<uint8_t>{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l'});
    CHECK(data.labels().to_vector<int64_t>() == std::vector<int64_t>{2, 0, 1});
    CHECK(data.classes() == 3);
    CHECK(data.ids() == std::vector<int64_t>{0, 1, 2});
  }
  // Members of a gzip file are concatenated.
  const std::string path = folder.write("members", gzip(labels.substr(0, 5)) + gzip(labels.substr(5)));
  CHECK(load_idx_file(path, 1).to_vector<uint8_t>() == std::vector<uint8_t>{2, 0, 1});
  CHECK(load_idx_file(folder.write("none", idx_bytes({0, 28, 28}, "")), 3).shape() == Shape{0, 28, 28});
}

TEST_CASE("large gzip files are read in pieces", "[idx]") {
  const TemporaryFolder folder;
  std::string data(300000, '\0');
  for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i * i >> 7);
  ByteReader reader(folder.write("a", gzip(data)));
  std::string read;
  std::string piece(777, ' ');
  for (size_t got = 1; got > 0;) {
    got = reader.read(std::as_writable_bytes(std::span(piece)));
    read += piece.substr(0, got);
  }
  CHECK(read == data);
}

TEST_CASE("corrupt idx files are refused with one sentence", "[idx]") {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& bytes, int rank = 3) {
    return refusal(folder.write("bad", bytes), [&](const std::string& path) { load_idx_file(path, rank); });
  };
  const std::string good = idx_bytes({3, 2, 2}, "abcdefghijkl"), zipped = gzip(good);
  CHECK(error(good) == "no error");
  CHECK(error("") == "the file ends inside its header (truncated?)");
  CHECK(error(good.substr(0, 3)) == "the file ends inside its header (truncated?)");
  CHECK(error(good.substr(0, 15)) == "the file ends inside its header (truncated?)");
  CHECK(error("\x89PNG and more") ==
        "not an idx file: it begins with the bytes 89 50 4e 47, 00 00 08 03 were expected");
  CHECK(error(std::string("\0\0\x0d\x03", 4)) ==
        "an idx file of unsigned bytes (type 08) was expected, it has the type 0d");
  CHECK(error(good, 1) == "an idx file with 1 axes was expected, it has 3");
  CHECK(error(good.substr(0, 27)) ==
        "the header promises [3, 2, 2] bytes of data, more than the file can hold (truncated?)");
  CHECK(error(good + "x") == "bytes are left over after the [3, 2, 2] that the header promises");
  CHECK(error(idx_bytes({0xffffffff, 0xffffffff, 0xffffffff}, "abc")) ==
        "the header promises [4294967295, 4294967295, 4294967295] bytes of data, more than the file can hold "
        "(truncated?)");
  CHECK(error(idx_bytes({0, 0xffffffff, 0xffffffff}, "")) ==
        "the header promises [0, 4294967295, 4294967295] bytes of data, more than the file can hold (truncated?)");

  CHECK(error(gzip(good.substr(0, 20))) == "the header promises [3, 2, 2] bytes of data, the file has 4 (truncated?)");
  CHECK(error(gzip(good + "x")) == "bytes are left over after the [3, 2, 2] that the header promises");
  CHECK(error(gzip(idx_bytes({0xffffffff, 28, 28}, "abc"))) ==
        "the header promises [4294967295, 28, 28] bytes of data, more than the file can hold (truncated?)");
  CHECK(error(zipped.substr(0, 12)) == "the gzip data end too early (truncated?)");
  CHECK(error(zipped.substr(0, zipped.size() - 1)) == "the gzip data end too early (truncated?)");
  CHECK(error(zipped + "x") == "the gzip data are complete, but other bytes follow them");
  CHECK(error(zipped + "\x1f\x8cx") == "the gzip data are corrupt (incorrect header check)");
  std::string changed = zipped;
  changed[zipped.size() - 8] = static_cast<char>(changed[zipped.size() - 8] + 1);
  CHECK(error(changed) == "the gzip data are corrupt (incorrect data check)");
  changed = zipped;
  changed[zipped.size() - 1] = 1;
  CHECK(error(changed) == "the gzip data are corrupt (incorrect length check)");
}

TEST_CASE("no change of one bit of an idx header or a gzip file does harm", "[idx]") {
  const TemporaryFolder folder;
  const std::string good = idx_bytes({3, 2, 2}, "abcdefghijkl"), zipped = gzip(good);
  const auto read = [&](const std::string& bytes) -> std::string {
    try {
      const Tensor t = load_idx_file(folder.write("bad", bytes), 3);
      return t.shape().str() + std::string(t.data<uint8_t>(), t.data<uint8_t>() + t.elements());
    } catch (const Error&) {
      return "refused";
    }
  };
  const auto changed = [](std::string bytes, size_t bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    return bytes;
  };
  for (size_t bit = 0; bit < 16 * 8; bit++) CHECK(read(changed(good, bit)) == "refused");
  // Some bits of a gzip file mean nothing: its time, the padding of its last block.
  for (size_t bit = 0; bit < zipped.size() * 8; bit++) {
    const std::string result = read(changed(zipped, bit));
    CHECK((result == "refused" || result == "[3, 2, 2]abcdefghijkl"));
  }
  for (size_t size = 0; size < good.size(); size++) CHECK(read(good.substr(0, size)) == "refused");
  for (size_t size = 0; size < zipped.size(); size++) CHECK(read(zipped.substr(0, size)) == "refused");
}

TEST_CASE("images and labels must belong together", "[idx]") {
  const TemporaryFolder folder;
  const std::string images = folder.write("images", idx_bytes({3, 1, 1}, "abc"));
  const std::string two = folder.write("two", idx_bytes({2}, std::string(2, '\1')));
  const std::string three = folder.write("three", idx_bytes({3}, std::string("\0\1\4", 3)));
  CHECK_THROWS_WITH(load_idx("x", images, two), images + " has 3 images, but " + two + " has 2 labels");
  CHECK_THROWS_WITH(load_idx("x", images, three, 4),
                    three + ": sample 2 has the label 4, but there are 4 classes, 0-3");
  CHECK(load_idx("x", images, three, 5).classes() == 5);
  CHECK_THROWS_WITH(load_idx("x", three, images), Contains("an idx file with 1 axes was expected, it has 3"));
  CHECK_THROWS_WITH(load_idx("x", images, folder / "none"), Contains("No such file"));
}

TEST_CASE("the folder of Fashion-MNIST is found, and named when it is not", "[idx]") {
  const TemporaryFolder folder;
  const std::string images = idx_bytes({1, 28, 28}, std::string(784, '\7')), labels = idx_bytes({1}, "\1");
  CHECK_THROWS_WITH(load_fashion_mnist(folder.path(), Part::test),
                    "the data set fashion-mnist needs t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, plain or with "
                    ".gz, in one folder (published at https://github.com/zalandoresearch/fashion-mnist); looked in " +
                        folder.path() + ", " + (folder / "fashion-mnist") + ", " + (folder / "FashionMNIST/raw"));
  const Environment home("XDG_DATA_HOME", folder / "home");
  CHECK_THROWS_WITH(load_mnist("", Part::train),
                    "the data set mnist needs train-images-idx3-ubyte, train-labels-idx1-ubyte, plain or with .gz, in "
                    "one folder (published at http://yann.lecun.com/exdb/mnist); looked in " +
                        (folder / "home/fastntk") + ", " + (folder / "home/fastntk/mnist") + ", " +
                        (folder / "home/fastntk/MNIST/raw") +
                        ", /usr/share/datasets, /usr/share/datasets/mnist, /usr/share/datasets/MNIST/raw; "
                        "--data-folder or FASTNTK_DATA can name another");
  folder.write("t10k-images-idx3-ubyte", images);
  CHECK_THROWS_AS(load_fashion_mnist(folder.path(), Part::test), Error);  // half of it is none
  folder.write("t10k-labels-idx1-ubyte.gz", gzip(labels));
  CHECK(load_fashion_mnist(folder.path(), Part::test).size() == 1);
  {
    const Environment environment("FASTNTK_DATA", folder.path());
    CHECK(load_fashion_mnist("", Part::test).size() == 1);
    CHECK(load_mnist("", Part::test).class_name(1) == "1");
    CHECK_THROWS_WITH(load_fashion_mnist("/nowhere", Part::test),
                      Contains("looked in /nowhere, /nowhere/fashion-mnist"));
  }
  std::filesystem::create_directory(folder / "mnist");
  folder.write("mnist/train-images-idx3-ubyte.gz", gzip(images));
  folder.write("mnist/train-labels-idx1-ubyte", labels);
  CHECK(load_mnist(folder.path(), Part::train).size() == 1);
}

TEST_CASE("EMNIST stands upright, and its splits have their own labels", "[idx]") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "gzip");
  folder.write("gzip/emnist-letters-test-images-idx3-ubyte.gz", gzip(idx_bytes({2, 2, 3}, "abcdefghijkl")));
  folder.write("gzip/emnist-letters-test-labels-idx1-ubyte.gz", gzip(idx_bytes({2}, "\1\x1a")));
  const Dataset letters = load_dataset("emnist:letters", folder.path(), Part::test);
  CHECK(letters.labels().to_vector<int64_t>() == std::vector<int64_t>{0, 25});
  CHECK(letters.class_name(25) == "25 (z)");
  REQUIRE(letters.images().shape() == Shape{2, 3, 2, 1});
  CHECK(letters.images().select(0, 0).to_vector<uint8_t>() == std::vector<uint8_t>{'a', 'd', 'b', 'e', 'c', 'f'});
  const std::string zero =
      folder.write("gzip/emnist-letters-test-labels-idx1-ubyte.gz", gzip(idx_bytes({2}, std::string("\1\0", 2))));
  CHECK_THROWS_WITH(load_emnist(folder.path(), Part::test, "letters"),
                    zero + ": sample 1 has the label 0, the first is 1");
  folder.write("emnist-bymerge-train-images-idx3-ubyte", idx_bytes({1, 28, 28}, std::string(784, '\7')));
  folder.write("emnist-bymerge-train-labels-idx1-ubyte", idx_bytes({1}, "\x2e"));
  CHECK(load_emnist(folder.path(), Part::train, "bymerge").class_name(46) == "46 (t)");
  CHECK_THROWS_AS(load_dataset("emnist:capitals", folder.path()), UsageError);
  CHECK_THROWS_AS(load_dataset("emnist", folder.path()), UsageError);
  CHECK_THROWS_WITH(load_dataset("emnist:balanced", folder.path()),
                    Contains("emnist-balanced-train-images-idx3-ubyte"));
}

TEST_CASE("KMNIST has MNIST's file names", "[idx]") {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "KMNIST/raw");
  folder.write("KMNIST/raw/t10k-images-idx3-ubyte", idx_bytes({1, 28, 28}, std::string(784, '\7')));
  folder.write("KMNIST/raw/t10k-labels-idx1-ubyte", idx_bytes({1}, "\3"));
  CHECK(load_dataset("kmnist", folder.path(), Part::test).class_name(3) == "3 (tsu)");
}

TEST_CASE("Fashion-MNIST as Debian has it", "[idx][fashion-mnist]") {
  const Dataset train = load_fashion_mnist("", Part::train), test = load_fashion_mnist("", Part::test);
  CHECK(train.images().shape() == Shape{60000, 28, 28, 1});
  CHECK(test.images().shape() == Shape{10000, 28, 28, 1});
  CHECK(train.class_counts() == std::vector<int64_t>(10, 6000));
  CHECK(test.class_counts() == std::vector<int64_t>(10, 1000));
  const auto labels = [](const Dataset& d) { return d.labels().slice(0, 0, 16).to_vector<int64_t>(); };
  CHECK(labels(train) == std::vector<int64_t>{9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9});
  CHECK(labels(test) == std::vector<int64_t>{9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 4, 5, 7, 3, 4, 1});
  CHECK(train.class_name(9) == "9 (Ankle boot)");
  // Summed over the files with NumPy.
  CHECK(sum_of_bytes(train.images()) == 3431114169);
  CHECK(sum_of_bytes(test.images()) == 573469082);
  const Normalisation n = measure_normalisation(train);
  CHECK(n.mean[0] == Approx(3431114169.0 / 255 / 47040000).epsilon(1e-14));
  CHECK(n.stddev[0] == Approx(0.3530).margin(5e-5));
  CHECK(train.sha256() == "425cb99dca56b46b09dfdac568ee4a0c22b7984eec8e8bd1fac41ebdb233aab9");
  CHECK(test.sha256() == "ffa482499686d85dbdc94081074fe37a5cf8d9a80b61ce9784e416406d421afa");
}
