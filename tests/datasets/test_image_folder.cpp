// Folders and lists of images: classes, order, ids, sizes; what is decoded when; what is refused.
#include <catch2/catch.hpp>

#include "datasets/image_folder.h"
#include "datasets/image_list.h"
#include "datasets/refusal.h"
#include "datasets/registry.h"
#include "datasets/split.h"
#include "engine/parallel.h"
#include "file_makers.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

std::string grey_png(int64_t height, int64_t width, int start) {
  std::vector<uint8_t> pixels;
  for (int64_t i = 0; i < height * width; i++) pixels.push_back(static_cast<uint8_t>(start + i));
  return png_bytes(pixels, height, width, 1);
}

std::string colour_jpeg(int64_t height, int64_t width) {
  return jpeg_bytes(std::vector<uint8_t>(static_cast<size_t>(height * width * 3), 130), height, width, 3);
}

// Writes a file and the folders above it.
std::string put(const TemporaryFolder& folder, const std::string& name, const std::string& bytes) {
  fs::create_directories(fs::path(folder / name).parent_path());
  return folder.write(name, bytes);
}

void put_animals(const TemporaryFolder& folder) {
  put(folder, "train/dog/b.png", grey_png(4, 5, 10));
  put(folder, "train/dog/a.png", grey_png(4, 5, 20));
  put(folder, "train/dog/more/c.PNG", grey_png(4, 5, 30));
  put(folder, "train/Cat/z.png", grey_png(4, 5, 40));
  put(folder, "train/dog/notes.txt", "not an image");
  put(folder, "train/dog/.hidden.png", "not an image");
  put(folder, "train/.git/x.png", "not an image");
  put(folder, "test/dog/t.png", grey_png(4, 5, 50));
}

}  // namespace

TEST_CASE("a folder of images, a class per folder", "[folder]") {
  const TemporaryFolder folder;
  put_animals(folder);
  const Dataset data = load_dataset("folder:" + (folder / "train"));
  CHECK(data.size() == 4);
  CHECK(data.classes() == 2);
  CHECK(data.class_name(0) == "0 (Cat)");
  CHECK(data.labels().to_vector<int64_t>() == std::vector<int64_t>{0, 1, 1, 1});
  CHECK(data.image_size() == ImageSize{4, 5, 1});
  const Tensor& images = data.images();
  REQUIRE(images.shape() == Shape{4, 4, 5, 1});
  for (const auto& [sample, first] : {std::pair<int64_t, int>{0, 40}, {1, 20}, {2, 10}, {3, 30}})
    CHECK(images.select(0, sample).to_vector<uint8_t>()[1] == first + 1);

  // Both parts: FOLDER/train and FOLDER/test, or two folders; the test part is labelled by the training part's classes.
  for (const std::string& name :
       {"folder:" + folder.path(), "folder:" + (folder / "train") + "," + (folder / "test")}) {
    CHECK(load_dataset(name).sha256() == data.sha256());
    const Dataset test = load_dataset(name, "", Part::test);
    CHECK(test.labels().to_vector<int64_t>() == std::vector<int64_t>{1});
    CHECK(test.classes() == 2);
  }
  CHECK_THROWS_AS(load_dataset("folder:" + (folder / "train"), "", Part::test), UsageError);
  CHECK_THROWS_AS(load_dataset("folder:"), UsageError);
  put(folder, "test/bird/t.png", grey_png(4, 5, 0));
  CHECK_THROWS_WITH(load_dataset("folder:" + folder.path(), "", Part::test),
                    folder / "test/bird" + ": there is no class of this name in " + (folder / "train"));
}

TEST_CASE("images in files are the same as in memory, whenever they are decoded", "[folder]") {
  const TemporaryFolder folder;
  for (int i = 0; i < 150; i++)
    put(folder, fmt::format("{}/{:03}.png", i % 3, i),
        i % 4 == 0 ? colour_jpeg(8 + i % 2, 9) : grey_png(8, 9 + i % 3, i));
  const Dataset loaded = load_image_folder(folder.path());
  CHECK_THROWS_WITH(loaded.images(), Contains("differ in size") && Contains("a transform must bring them to one"));
  const Transform transform = Transform::parse("resize:8,crop:6x7");
  const auto fresh = [&] { return loaded.transformed(transform); };
  const int threads = thread_count();
  set_thread_count(1);
  const Dataset kept = fresh();
  const Tensor& images = kept.images();
  CHECK(images.shape() == Shape{150, 6, 7, 3});  // some are in colour, so all have three channels
  set_thread_count(3);
  CHECK(fresh().images().to_vector<uint8_t>() == images.to_vector<uint8_t>());
  const Dataset memory("memory", images, loaded.labels(), 3);
  CHECK(fresh().sha256() == memory.sha256());
  CHECK(kept.sha256() == memory.sha256());
  const std::vector<int64_t> some{149, 3, 77, 78, 3};
  const Normalisation n = measure_normalisation(fresh());
  CHECK(n.mean == measure_normalisation(memory).mean);
  CHECK(fresh().images_as_float(some, n).to_vector<float>() == memory.images_as_float(some, n).to_vector<float>());
  const Dataset lazy = Split::parse("class:1").select(loaded).transformed(transform);
  lazy.decode_within(10);  // not that few
  CHECK(lazy.sha256() == Split::parse("class:1").select(memory).sha256());
  lazy.decode_within(0);
  CHECK(lazy.sha256() == Split::parse("class:1").select(memory).sha256());
  CHECK(lazy.subset(std::vector<int64_t>{4, 2}).sha256() ==
        Split::parse("class:1").select(kept).subset(std::vector<int64_t>{4, 2}).sha256());
  set_thread_count(threads);
  CHECK(loaded.subset({}).sha256() == loaded.subset({}).transformed(transform).sha256());
  CHECK_THROWS_WITH(loaded.transformed(Transform::parse("crop:9")).images(),
                    folder / "0/000.png" + ": an image of 8x9 pixels is too small for crop:9");
}

TEST_CASE("folders that hold no data set are refused", "[folder]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(load_image_folder(folder / "none"),
                    "cannot read the folder " + (folder / "none") + ": No such file or directory");
  CHECK_THROWS_WITH(load_image_folder(folder.path()), folder.path() +
                                                          ": it has no folders; a folder per class was "
                                                          "expected, with its images");
  put(folder, "a/x.txt", "x");
  CHECK_THROWS_WITH(load_image_folder(folder.path()), Contains("/a: no images of the class"));
  put(folder, "a/x.png", "not an image");
  CHECK_THROWS_WITH(load_image_folder(folder.path()), folder / "a/x.png" +
                                                          ": neither a PNG nor a JPEG image: it begins "
                                                          "as neither");
  const std::string good = grey_png(20, 20, 0);
  put(folder, "a/x.png", good.substr(0, good.size() - 20));
  CHECK_THROWS_WITH(load_image_folder(folder.path()).images(), Contains("a/x.png: the PNG image is damaged"));
  put(folder, "a/x.png", good);
  const Dataset data = load_image_folder(folder.path());
  put(folder, "a/x.png", grey_png(21, 20, 0));
  CHECK_THROWS_WITH(data.images(), folder / "a/x.png" + ": the file changed while it was in use");
}

TEST_CASE("a list of images in a CSV file", "[folder]") {
  const TemporaryFolder folder;
  put_animals(folder);
  const auto list = [&](const std::string& name, const std::string& text) { return folder.write(name, text); };
  const std::string numbers =
      list("n.csv", "id,path,label,note\n7,train/dog/a.png,2,\"a, b\"\r\n3," + (folder / "train/Cat/z.png") + ",0,\n");
  const Dataset data = load_dataset("csv:" + numbers);
  CHECK(data.ids() == std::vector<int64_t>{7, 3});
  CHECK(data.published_size() == 8);
  CHECK(data.classes() == 3);
  CHECK(data.labels().to_vector<int64_t>() == std::vector<int64_t>{2, 0});
  CHECK(data.images().select(0, 0).to_vector<uint8_t>()[0] == 20);
  CHECK(Split::parse("ids:3").select(data).labels().to_vector<int64_t>() == std::vector<int64_t>{0});

  const std::string names = list("train.csv", "path,label\ntrain/dog/a.png,dog\ntrain/Cat/z.png,Cat\n"),
                    test = list("test.csv", "label,path\ndog,test/dog/t.png\n");
  const Dataset both = load_dataset("csv:" + names + "," + test, "", Part::test);
  CHECK(both.labels().to_vector<int64_t>() == std::vector<int64_t>{1});
  CHECK(both.class_name(1) == "1 (dog)");
  CHECK_THROWS_WITH(load_image_list(list("odd.csv", "path,label\na.png,bird\n"), names),
                    folder / "odd.csv" + ": line 2 has a label that is not among those of " + names);
  CHECK_THROWS_WITH(load_image_list(list("gone.csv", "path,label\na.png,1\n")), Contains("a.png: No such file"));

  const auto error = [](const std::string& text) {
    return refusal("list", [&](const std::string& path) { parse_image_list(text, path); });
  };
  CHECK(error("path,label\na,1\n") == "no error");
  CHECK(error("") == "it is empty; a line with the columns path and label was expected");
  CHECK(error("path,label\n") == "it lists no images");
  CHECK(error("path,class\na,1\n") == "its first line names no column label; path and label were expected");
  CHECK(error("path,label,path\na,1,b\n") == "two of its columns have the same name");
  CHECK(error("path,label\n,1\n") == "line 2 has an empty path");
  CHECK(error("path,label\na,\n") == "line 2 has an empty label");
  CHECK(error("path,label,id\na,1,x\n") == "line 2 has an id that is not a whole number");
  CHECK(error("path,label,id\na,1,4\nb,1,4\n") == "line 3 has the id 4 for the second time");
}
