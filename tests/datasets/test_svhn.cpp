// SVHN's MATLAB files: what is read, and that nothing damaged is.
#include <catch2/catch.hpp>

#include "datasets/mat_check.h"
#include "datasets/refusal.h"
#include "datasets/registry.h"
#include "datasets/svhn.h"
#include "file_makers.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Matchers::Contains;

TEST_CASE("SVHN files are read, plain and compressed", "[svhn]") {
  const TemporaryFolder folder;
  for (const bool compressed : {false, true})
    for (const int32_t count : {1, 12}) {
      folder.write("train_32x32.mat", svhn_bytes(count, compressed));
      const Dataset data = load_dataset("svhn", folder.path());
      REQUIRE(data.images().shape() == Shape{count, 32, 32, 3});
      CHECK(data.classes() == 10);
      const auto labels = data.labels().to_vector<int64_t>();
      for (size_t i = 0; i < labels.size(); i++) CHECK(labels[i] == static_cast<int64_t>((i % 10 + 1) % 10));
      const int64_t n = count - 1, row = 5, column = 30, channel = 2;
      const auto pixel = data.images().select(0, n).select(0, row).select(0, column).to_vector<uint8_t>()[channel];
      const int64_t at = row + 32 * (column + 32 * (channel + 3 * n));
      CHECK(pixel == static_cast<uint8_t>(at * 7 + at / 256));
    }
  CHECK_THROWS_WITH(load_dataset("svhn", folder.path(), Part::test),
                    Contains("the data set svhn needs test_32x32.mat (published at http"));
}

TEST_CASE("damaged SVHN files are refused with one sentence", "[svhn]") {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& bytes) {
    return refusal(folder.write("bad.mat", bytes), [](const std::string& path) { load_svhn_file(path); });
  };
  const std::string pixels(3072, 'a'), one(1, '\1');
  const std::string x = mat_array("X", {32, 32, 3, 1}, 9, pixels, false), y = mat_array("y", {1, 1}, 9, one, false);
  CHECK(error(mat_header() + x + y) == "no error");
  CHECK(error("") == "a MATLAB 5 file begins with 128 bytes, this file has 0");
  CHECK(error(std::string(128, 'M')) == "not a little-endian MATLAB 5 file: its header does not say so");
  CHECK(error(mat_header()) == "it has no array y");
  CHECK(error(mat_header() + y) == "it has no array X");
  CHECK(error(mat_header() + y.substr(0, 5)) == "the file ends inside the tag of an array (truncated?)");
  CHECK_THAT(error(mat_header() + x.substr(0, x.size() - 1)), Contains("the file has only") && Contains("truncated"));
  const std::string zipped = mat_array("X", {32, 32, 3, 1}, 9, pixels, true);
  std::string changed = zipped;
  changed[zipped.size() - 1] = static_cast<char>(changed[zipped.size() - 1] ^ 1);
  CHECK(error(mat_header() + changed + y) == "the compressed data of an array are damaged (incorrect data check)");
  CHECK(error(mat_header() + y + mat_array("X", {32, 32, 1}, 9, std::string(1024, 'a'), false)) ==
        "the array X must be uint8 32x32x3x1, as y has it, it is 32x32x1");
  CHECK(error(mat_header() + x + mat_array("y", {2, 1}, 9, "\1\2", false)) ==
        "the array X must be uint8 32x32x3x2, as y has it, it is 32x32x3x1");
  CHECK(error(mat_header() + x + mat_array("y", {1, 1}, 9, std::string(1, '\0'), false)) ==
        "sample 0 has the label 0, not 1-10");
  CHECK(error(mat_header() + x + mat_array("y", {1, 2}, 9, "\1\2", false)) ==
        "the array y must be Nx1 of double or uint8, it is 1x2");
  CHECK(error(mat_header() + x + mat_array("y", {1, 1}, 1, one, false)) ==
        "it holds an array of MATLAB's class 1; numeric arrays (6-15) were expected");
  CHECK(error(mat_header() + x + mat_array("y", {1 << 30, 1 << 30}, 9, one, false)) ==
        "an array of 1152921504606846976 elements has 1 bytes of them");
  CHECK(error(mat_header() + x + mat_array(std::string(64, 'y'), {1, 1}, 9, one, false)) ==
        "the name of an array has 64 characters");
  CHECK(error(mat_header() + x + mat_array("y", {1}, 9, one, false)) ==
        "an array has 4 bytes of extents; 2 to 8 extents of 4 bytes were expected");
  CHECK(error(mat_header() + x + mat_array("y", {700, 1}, 9, one, false)) ==
        "an array of 700 elements has 1 bytes of them");
}
