#include <catch2/catch.hpp>
#include <filesystem>

#include "engine/atomic_folder.h"
#include "engine/error.h"
#include "engine/file.h"
#include "temporary_folder.h"

using namespace fastntk;

TEST_CASE("a folder appears complete or not at all", "[files]") {
  const TemporaryFolder folder;
  const std::string path = folder / "above/state";
  {
    AtomicFolder files(path + "/");
    write_file_atomically(files.partial() + "/a", "1");
    CHECK_FALSE(std::filesystem::exists(path));
    CHECK_THROWS_WITH(AtomicFolder(path), Catch::Contains("another process"));
    CHECK(read_file(files.partial() + "/a") == "1");
  }
  CHECK(std::filesystem::is_empty(folder / "above"));
  // What a killed process left is not part of it.
  std::filesystem::create_directories(path + ".partial/deep");
  write_file_atomically(path + ".partial/deep/old", "0");
  {
    AtomicFolder files(path);
    write_file_atomically(files.partial() + "/b", "2");
    files.commit();
  }
  CHECK(read_file(path + "/b") == "2");
  CHECK_FALSE(std::filesystem::exists(path + "/deep"));
  CHECK_FALSE(std::filesystem::exists(path + ".partial"));
  CHECK_THROWS_AS(AtomicFolder(path), UsageError);
  CHECK_THROWS_WITH(AtomicFolder(folder.write("file", "") + "/x"), Catch::Contains("cannot make"));
}
