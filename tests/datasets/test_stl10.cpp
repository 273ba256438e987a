// STL-10, and what is not.
#include <catch2/catch.hpp>

#include "datasets/refusal.h"
#include "datasets/registry.h"
#include "datasets/small_data.h"
#include "datasets/stl10.h"
#include "file_makers.h"
#include "temporary_folder.h"

using namespace fastntk;

TEST_CASE("STL-10 files are read, planes interleaved and columns turned into rows", "[stl10]") {
  const TemporaryFolder folder;
  const std::string pixels = stl10_images(2, 17), labels = "\x01\x0a";
  for (const bool compressed : {false, true}) {
    const Dataset data = load_stl10_files(folder.write("x", compressed ? gzip(pixels) : pixels),
                                          folder.write("y", compressed ? gzip(labels) : labels));
    CHECK(data.labels().to_vector<int64_t>() == std::vector<int64_t>{0, 9});
    REQUIRE(data.images().shape() == Shape{2, 96, 96, 3});
    const auto bytes = data.images().to_vector<uint8_t>();
    for (size_t i = 0; i < 2; i++)
      for (size_t y = 0; y < 96; y++)
        for (size_t x = 0; x < 96; x++)
          for (size_t c = 0; c < 3; c++)
            REQUIRE(bytes[((i * 96 + y) * 96 + x) * 3 + c] == static_cast<uint8_t>(17 + i + 85 * c + 3 * x + y));
  }
}

TEST_CASE("damaged STL-10 files are refused with one sentence", "[stl10]") {
  const TemporaryFolder folder;
  const std::string good = stl10_images(1, 0), x = folder.write("x", good), y = folder.write("y", "\x03");
  const auto images = [&](const std::string& bytes) {
    return refusal(folder.write("bad", bytes), [&](const std::string& path) { load_stl10_files(path, y); });
  };
  const auto labels = [&](const std::string& bytes) {
    return refusal(folder.write("bad", bytes), [&](const std::string& path) { load_stl10_files(x, path); });
  };
  CHECK(images(good) == "no error");
  CHECK(images("") == "0 bytes, which are not images of 27648 (96x96x3)");
  CHECK(images(good + "x") == "27649 bytes, which are not images of 27648 (96x96x3)");
  CHECK(images(gzip(good).substr(0, 50)) == "the gzip data end too early (truncated?)");
  CHECK(labels("") == "0 labels, but " + x + " has 1 images");
  CHECK(labels("\x0b") == "sample 0 has the label 11, not 1-10");
  CHECK(labels(std::string(1, '\0')) == "sample 0 has the label 0, not 1-10");
}

TEST_CASE("STL-10 is found by name", "[stl10]") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "stl10_binary");
  folder.write("stl10_binary/train_X.bin", stl10_images(1, 0));
  folder.write("stl10_binary/train_y.bin", "\x08");
  const Dataset data = load_dataset("stl-10", folder.path());
  CHECK(data.class_name(data.labels().to_vector<int64_t>()[0]) == "7 (monkey)");
  CHECK_THROWS_WITH(load_dataset("stl-10", folder.path(), Part::test),
                    Catch::Matchers::StartsWith(
                        "the data set stl-10 needs test_X.bin, test_y.bin, plain or with .gz, in one folder"));
  CHECK_THROWS_AS(load_dataset("stl-10:x"), UsageError);
}
