// CIFAR-10 and CIFAR-100, and what is not.
#include <catch2/catch.hpp>

#include "datasets/cifar.h"
#include "datasets/environment.h"
#include "datasets/refusal.h"
#include "datasets/registry.h"
#include "datasets/small_data.h"
#include "file_makers.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Matchers::Contains;

TEST_CASE("CIFAR records are read, planes interleaved", "[cifar]") {
  const TemporaryFolder folder;
  const std::string bytes = cifar_record({3}, 0) + cifar_record({9}, 17);
  for (const bool compressed : {false, true}) {
    const std::string path = folder.write("a.bin", compressed ? gzip(bytes) : bytes);
    const Dataset data = load_cifar_files("c", {path, path}, {.bytes = 1, .which = 0, .classes = 10});
    CHECK(data.images().shape() == Shape{4, 32, 32, 3});
    CHECK(data.labels().to_vector<int64_t>() == std::vector<int64_t>{3, 9, 3, 9});
    const auto pixels = data.images().select(0, 3).to_vector<uint8_t>();
    for (size_t p = 0; p < 1024; p++)
      for (size_t c = 0; c < 3; c++) REQUIRE(pixels[p * 3 + c] == static_cast<uint8_t>(17 + p + 85 * c));
  }
}

TEST_CASE("damaged CIFAR files are refused with one sentence", "[cifar]") {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& bytes, const CifarLabels& labels = {1, 0, 10}) {
    return refusal(folder.write("bad", bytes), [&](const std::string& path) { load_cifar_files("c", {path}, labels); });
  };
  const std::string good = cifar_record({3}, 0);
  CHECK(error(good) == "no error");
  CHECK(error("") == "0 bytes, which are not records of 3073 (a label and 32x32x3 pixels)");
  CHECK(error(good.substr(1)) == "3072 bytes, which are not records of 3073 (a label and 32x32x3 pixels)");
  CHECK(error(good + "x", {2, 0, 20}) == "no error");
  CHECK(error(good, {2, 1, 100}) == "3073 bytes, which are not records of 3074 (two labels and 32x32x3 pixels)");
  CHECK(error(good + cifar_record({10}, 0)) == "record 1 has the label 10, but there are 10 classes, 0-9");
  CHECK(error(gzip(good).substr(0, 100)) == "the gzip data end too early (truncated?)");
}

TEST_CASE("CIFAR is found by name", "[cifar]") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "cifar-10-batches-bin");
  for (int batch = 1; batch <= 5; batch++)
    folder.write(fmt::format("cifar-10-batches-bin/data_batch_{}.bin", batch),
                 cifar_record({static_cast<uint8_t>(batch)}, batch));
  folder.write("test.bin", cifar_record({4, 77}, 0));
  const Dataset ten = load_dataset("cifar-10", folder.path());
  CHECK(ten.labels().to_vector<int64_t>() == std::vector<int64_t>{1, 2, 3, 4, 5});
  CHECK(ten.class_name(3) == "3 (cat)");
  CHECK(load_dataset("cifar-100", folder.path(), Part::test).labels().to_vector<int64_t>() == std::vector<int64_t>{77});
  const Dataset coarse = load_dataset("cifar-100:superclasses", folder.path(), Part::test);
  CHECK(coarse.labels().to_vector<int64_t>() == std::vector<int64_t>{4});
  CHECK(coarse.classes() == 20);
  CHECK_THROWS_WITH(load_dataset("cifar-10", folder.path(), Part::test),
                    "the data set cifar-10 needs test_batch.bin, plain or with .gz (published at "
                    "https://www.cs.toronto.edu/~kriz/cifar.html, the binary version); looked in " +
                        folder.path() + ", " + (folder / "cifar-10") + ", " + (folder / "cifar-10-batches-bin"));
  const Environment data("FASTNTK_DATA", folder / "x"), home("XDG_DATA_HOME", folder / "y");
  CHECK_THROWS_WITH(load_dataset("cifar-100"),
                    Contains("needs train.bin, plain or with .gz") && Contains("looked in " + (folder / "x,")) &&
                        Contains(folder / "y/fastntk/cifar-100-binary") && Contains("/usr/share/datasets, ") &&
                        Contains("; --data-folder or FASTNTK_DATA can name another"));
  CHECK_THROWS_AS(load_dataset("cifar-100:fine"), UsageError);
  CHECK_THROWS_AS(load_dataset("cifar-10:x"), UsageError);
}
