// Subsets, ids, normalisation and hashes of data sets; data sets by name.
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "datasets/registry.h"
#include "datasets/small_data.h"
#include "datasets/tensor_file.h"
#include "engine/npy.h"
#include "engine/parallel.h"
#include "engine/safetensors.h"
#include "temporary_folder.h"

using namespace fastntk;
using Catch::Matchers::Contains;

namespace {

std::vector<int64_t> all_positions(const Dataset& data) {
  std::vector<int64_t> positions(static_cast<size_t>(data.size()));
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

}  // namespace

TEST_CASE("ids are stable under nested subsets", "[dataset]") {
  const Dataset data = small_data(20, 4, 2);
  const std::vector<int64_t> even{0, 2, 4, 6, 8, 10, 12, 14, 16, 18}, backwards{9, 3, 4};
  const Dataset half = data.subset(even);
  const Dataset few = half.subset(backwards);
  CHECK(few.ids() == std::vector<int64_t>{18, 6, 8});
  CHECK(few.published_size() == 20);
  CHECK(few.classes() == 4);
  CHECK(few.labels().to_vector<int64_t>() == std::vector<int64_t>{2, 2, 0});
  for (int64_t i = 0; i < few.size(); i++)
    CHECK(few.images().select(0, i).to_vector<uint8_t>() ==
          data.images().select(0, few.ids()[static_cast<size_t>(i)]).to_vector<uint8_t>());
  const std::vector<int64_t> ids{8, 18};
  CHECK(few.positions_of(ids) == std::vector<int64_t>{2, 0});
  CHECK(few.subset_by_id(ids).sha256() == data.subset_by_id(ids).sha256());
  CHECK(data.subset({}).size() == 0);

  const std::vector<int64_t> odd{7}, twice{1, 1}, outside{20};
  CHECK_THROWS_WITH(half.positions_of(odd), "the data set small has no sample with the id 7 among its 10");
  CHECK_THROWS_WITH(data.subset(twice), "position 1 of the data set small was asked for twice");
  CHECK_THROWS_WITH(data.subset(outside), "position 20 of the data set small, which has 20 samples");
}

TEST_CASE("what is not a data set is refused", "[dataset]") {
  const Tensor images = Tensor::zeros({3, 2, 2, 1}), labels = Tensor::zeros({3}, DType::int64);
  CHECK_THROWS_WITH(Dataset("x", Tensor::zeros({3, 4}), labels, 1),
                    "data set x: images must be uint8, float32 or float64 [N, H, W, C], got float32 [3, 4]");
  CHECK_THROWS_WITH(Dataset("x", Tensor(), labels, 1), Contains("got nothing"));
  CHECK_THROWS_WITH(Dataset("x", Tensor::zeros({3, 0, 2, 1}), labels, 1), Contains("have no pixels"));
  CHECK_THROWS_WITH(Dataset("x", images, Tensor::zeros({2}, DType::int64), 1),
                    "data set x: 3 images need labels int64 [3], got int64 [2]");
  CHECK_THROWS_WITH(Dataset("x", images, Tensor::full({3}, 5, DType::int64), 5),
                    "data set x: sample 0 has the label 5, there are 5 classes");
  CHECK_THROWS_WITH(Dataset("x", images, Tensor::full({3}, -1, DType::int64), 5), Contains("has the label -1"));
  CHECK_THROWS_WITH(Dataset("x", images, labels, 2, {"a"}), "data set x: 2 classes with 1 names");
  const Dataset unlabelled("x", images, {}, 0);
  CHECK_FALSE(unlabelled.has_labels());
  CHECK_THROWS_WITH(unlabelled.labels(), "the data set x has no labels");
  const std::vector<int64_t> first{0};
  CHECK_FALSE(unlabelled.subset(first).has_labels());
  CHECK_THROWS_WITH(small_data(4, 2).class_name(2), "the data set small has 2 classes, there is no class 2");
}

TEMPLATE_TEST_CASE("images are normalised channel by channel", "[dataset]", float, double) {
  const DType dtype = dtype_of<TestType>();
  const Dataset data = small_data(50, 5, 3);
  const Normalisation n{{0.1, 0.2, 0.3}, {0.5, 0.25, 2}};
  const std::vector<int64_t> positions{49, 0, 7, 7};
  const Tensor x = data.images_as_float(positions, n, dtype);
  CHECK(x.shape() == Shape{4, 2, 3, 3});
  const auto values = x.template to_vector<TestType>();
  for (size_t i = 0; i < values.size(); i++) {
    const auto pixels = data.images().select(0, positions[i / 18]).to_vector<uint8_t>();
    const size_t c = i % 3;
    CHECK(values[i] == static_cast<TestType>((pixels[i % 18] / 255.0 - n.mean[c]) / n.stddev[c]));
  }
  // Floating-point pixels are not divided by 255; the identity leaves them as they are.
  const Dataset floating("f", data.images().to(dtype), {}, 0);
  CHECK(floating.images_as_float(all_positions(floating), Normalisation::identity(3), dtype)
            .template to_vector<TestType>() == floating.images().to_vector<TestType>());
}

TEST_CASE("batches have the same bits for any number of threads and any cut", "[dataset]") {
  const Dataset data = small_data(100, 5, 3);
  const Normalisation n = measure_normalisation(data);
  const std::vector<int64_t> positions = all_positions(data);
  const int threads = thread_count();
  set_thread_count(1);
  const auto expected = data.images_as_float(positions, n).to_vector<float>();
  set_thread_count(3);
  CHECK(data.images_as_float(positions, n).to_vector<float>() == expected);
  set_thread_count(threads);
  std::vector<float> pieces;
  for (size_t at = 0; at < positions.size(); at += 7) {
    const auto part = std::span(positions).subspan(at, std::min<size_t>(7, positions.size() - at));
    for (const float x : data.images_as_float(part, n).to_vector<float>()) pieces.push_back(x);
  }
  CHECK(pieces == expected);
}

TEST_CASE("measured normalisation gives mean 0 and standard deviation 1", "[dataset]") {
  const Dataset bytes = small_data(64, 2, 2);
  for (const Dataset& data : {bytes, Dataset("f", bytes.images().to(DType::float32), {}, 0)}) {
    const Tensor x = data.images_as_float(all_positions(data), measure_normalisation(data), DType::float64);
    const auto values = x.to_vector<double>();
    for (size_t c = 0; c < 2; c++) {
      double sum = 0, squares = 0;
      for (size_t i = c; i < values.size(); i += 2) sum += values[i], squares += values[i] * values[i];
      const size_t each = values.size() / 2;
      const auto count = static_cast<double>(each);
      CHECK(sum / count == Approx(0).margin(1e-12));
      CHECK(squares / count == Approx(1).epsilon(1e-12));
    }
  }
  CHECK(measure_normalisation(Dataset("c", Tensor::full({1, 2, 2, 1}, 5), {}, 0)).stddev[0] == 1);
  CHECK_THROWS_WITH(measure_normalisation(bytes.subset({})), Contains("is empty"));
  const std::vector<int64_t> first{0};
  CHECK_THROWS_WITH(bytes.images_as_float(first, Normalisation::identity(1)),
                    "the data set small has 2 channels, the normalisation has 1 means and 1 standard deviations");
  CHECK_THROWS_WITH(bytes.images_as_float(first, {{0, 0}, {1, 0}}),
                    "a normalisation needs standard deviations above 0, got 0");
  CHECK_THROWS_WITH(bytes.images_as_float(first, Normalisation::identity(2), DType::uint8), Contains("float32"));
}

TEST_CASE("the hash of a data set depends on pixels, shape, labels and ids, not on names", "[dataset]") {
  const Dataset data = small_data(6, 3);
  const std::string hash = data.sha256();
  CHECK(hash.size() == 64);
  CHECK(small_data(6, 3).sha256() == hash);
  CHECK(Dataset("other", data.images(), data.labels(), 3, {"a", "b", "c"}).sha256() == hash);
  CHECK(Dataset("small", data.images(), {}, 3).sha256() != hash);
  CHECK(Dataset("small", data.images().reshape({6, 3, 2, 1}), data.labels(), 3).sha256() != hash);
  CHECK(Dataset("small", data.images(), Tensor::zeros({6}, DType::int64), 3).sha256() != hash);
  const std::vector<int64_t> all{0, 1, 2, 3, 4, 5}, swapped{1, 0, 2, 3, 4, 5};
  CHECK(data.subset(all).sha256() == hash);
  CHECK(data.subset(swapped).sha256() != hash);
  CHECK(data.subset(swapped).subset(swapped).sha256() == hash);
  CHECK(data.subset(swapped).ids_sha256() != data.ids_sha256());
}

TEST_CASE("tensor files become data sets, channels last", "[dataset]") {
  const TemporaryFolder folder;
  std::vector<float> values(2 * 3 * 2 * 2);
  std::iota(values.begin(), values.end(), 0.0F);
  const Tensor input = Tensor::from<float>({2, 3, 2, 2}, values);
  const auto write = [&](const char* name, std::vector<std::pair<std::string, Tensor>> tensors) {
    SafeTensors file;
    file.tensors = std::move(tensors);
    file.save(folder / name);
    return folder / name;
  };
  const std::string path =
      write("a.safetensors", {{"input", input}, {"labels", Tensor::from<uint8_t>({2}, std::vector<uint8_t>{4, 1})}});
  const Dataset data = load_tensor_file(path);
  CHECK(data.name() == path);
  CHECK(data.images().shape() == Shape{2, 2, 2, 3});
  CHECK(data.images().select(0, 1).select(0, 0).select(0, 1).to_vector<float>() == std::vector<float>{13, 17, 21});
  CHECK(data.labels().to_vector<int64_t>() == std::vector<int64_t>{4, 1});
  CHECK(data.classes() == 5);
  save_npy(folder / "a.npy", input);
  CHECK(load_dataset(folder / "a.npy").images().to_vector<float>() == data.images().to_vector<float>());
  CHECK_FALSE(load_dataset("tensors:" + (folder / "a.npy")).has_labels());
  CHECK(load_dataset(fmt::format("tensors:{},{}", folder / "a.npy", path), "", Part::test).has_labels());

  CHECK_THROWS_WITH(load_tensor_file(write("b.safetensors", {{"x", input}})),
                    folder / "b.safetensors" + ": it has no tensor \"input\"");
  CHECK_THROWS_WITH(
      load_tensor_file(write("c.safetensors", {{"input", Tensor::zeros({2, 3})}})),
      folder / "c.safetensors" + ": the input must be float32, float64 or uint8 [N, C, H, W], it is float32 [2, 3]");
  CHECK_THROWS_WITH(
      load_tensor_file(write("d.safetensors", {{"input", input}, {"labels", Tensor::zeros({2})}})),
      folder / "d.safetensors" + ": the labels of 2 inputs must be int64 or uint8 [2], they are float32 [2]");
  CHECK_THROWS_WITH(
      load_tensor_file(write("e.safetensors", {{"input", input}, {"labels", Tensor::full({2}, -1, DType::int64)}})),
      Contains("e.safetensors: sample 0 has the label -1"));
  CHECK_THROWS_WITH(load_tensor_file(folder / "a.pt"), Contains("a tensor file ends in .safetensors or .npy"));
}

TEST_CASE("data sets are found by name, and users add their own", "[dataset]") {
  const TemporaryFolder folder;
  const std::string images = folder.write("i", idx_bytes({1, 1, 1}, "a")),
                    labels = folder.write("l", idx_bytes({1}, "\2"));
  CHECK(load_dataset(fmt::format("idx:{},{}", images, labels)).classes() == 3);
  CHECK(load_dataset(fmt::format("idx:/none,/none,{},{}", images, labels), "", Part::test).size() == 1);
  CHECK_THROWS_WITH(load_dataset(fmt::format("idx:{},{}", images, labels), "", Part::test),
                    Contains("names no files for the test part"));
  CHECK_THROWS_AS(load_dataset("idx:a"), UsageError);
  CHECK_THROWS_AS(load_dataset("tensors:"), UsageError);
  CHECK_THROWS_WITH(load_dataset("fashion-mnist:x"), "the data set fashion-mnist takes no argument, got \"x\"");

  static int registered = 0;
  if (registered++ == 0)
    register_dataset({"mine", "mine:N: N samples of two classes", [](const DatasetRequest& request) {
                        return small_data(std::stoll(request.argument), request.part == Part::train ? 2 : 3);
                      }});
  CHECK(load_dataset("mine:5").size() == 5);
  CHECK(load_dataset("mine:5", "", Part::test).classes() == 3);
  CHECK_THROWS_WITH(register_dataset({"mnist", "", {}}), "a data set mnist is registered already");
  CHECK_THROWS_WITH(register_dataset({"a:b", "", {}}), "the name of a data set cannot be \"a:b\"");
  CHECK_THROWS_WITH(
      load_dataset("cifar"),
      "there is no data set \"cifar\"; known are cifar-10, cifar-100, csv, emnist, fashion-mnist, folder, "
      "idx, kmnist, mine, mnist, stl-10, svhn, tensors, and paths to .safetensors and .npy files");
  CHECK_THROWS_AS(load_dataset("cifar"), UsageError);
}
