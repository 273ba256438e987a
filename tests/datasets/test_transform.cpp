// Transforms: the pixels that torchvision makes of Pillow's images, presets by name, texts that are none.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "datasets/small_data.h"
#include "datasets/transform.h"
#include "engine/parallel.h"
#include "engine/safetensors.h"

using namespace fastntk;
using Catch::Matchers::Contains;

namespace {

const SafeTensors& golden() {
  static const SafeTensors file =
      SafeTensors::load(std::string(FASTNTK_SOURCE_DIR) + "/tests/golden/golden_images.safetensors");
  return file;
}

}  // namespace

TEST_CASE("resizing and cropping give torchvision's pixels", "[transform]") {
  const auto largest_step = [](const Tensor& a, const Tensor& b) {
    const auto x = a.to_vector<uint8_t>(), y = b.to_vector<uint8_t>();
    int largest = 0;
    for (size_t i = 0; i < x.size(); i++) largest = std::max(largest, std::abs(x[i] - y[i]));
    return largest;
  };
  const Tensor image = *golden().find("image");
  int compared = 0;
  for (const auto& [name, expected] : golden().tensors) {
    if (!name.starts_with("transform.")) continue;
    INFO(name);
    compared++;
    const Transform transform = Transform::parse(name.substr(10));
    const Tensor result = transform.apply(image);
    REQUIRE(result.shape() == expected.shape());
    // Bit for bit, but where Pillow takes the columns first.
    const int most = name.find("20x71") == std::string::npos ? 0 : 1;
    CHECK(largest_step(result, expected) <= most);
    CHECK(transform.output({37, 53, 3}, "x") == ImageSize{result.extent(0), result.extent(1), 3});
    // Grey images go the same way.
    const Tensor red = transform.apply(image.slice(2, 0, 1));
    CHECK(largest_step(red, expected.slice(2, 0, 1)) <= most);
  }
  CHECK(compared == 20);
  const Tensor grey = Transform::parse("grey").apply(image);
  CHECK(grey.to_vector<uint8_t>() == golden().find("grey")->to_vector<uint8_t>());
  CHECK(Transform::parse("rgb").apply(grey).slice(2, 1, 2).to_vector<uint8_t>() == grey.to_vector<uint8_t>());
}

TEST_CASE("presets are those of torchvision and timm", "[transform]") {
  size_t known = 0;
  for (const auto& [key, text] : golden().metadata) {
    if (!key.starts_with("preset.")) continue;
    INFO(key);
    known++;
    CHECK(Transform::parse(key.substr(7)).str() == text);
  }
  CHECK(known == transform_presets().size());
  CHECK(Transform::parse("torchvision/resnet50-v1").str() == "resize:256:bilinear,crop:224,normalise:imagenet");
  CHECK(Transform::parse("timm/vit_base_patch16_224").str() == "resize:248:bicubic,crop:224,normalise:inception");
}

TEST_CASE("transforms as text", "[transform]") {
  for (const char* const text : {"", "resize:256:bilinear,crop:224,normalise:imagenet", "resize:20x30:bicubic",
                                 "crop:3x4", "grey,normalise:0.5:0.25", "rgb", "normalise:inception"})
    CHECK(Transform::parse(text).str() == text);
  CHECK(Transform::parse("resize:8").str() == "resize:8:bilinear");
  CHECK(Transform::parse("resize:16,crop:8").then(Transform::parse("grey")).str() == "resize:16:bilinear,crop:8,grey");
  CHECK_FALSE(Transform::parse("normalise:imagenet").changes_pixels());
  const Normalisation n = *Transform::parse("normalise:0.1:0.2:1:2").normalisation(2);
  CHECK(n.mean == std::vector<double>{0.1, 0.2});
  CHECK(n.stddev == std::vector<double>{1, 2});
  CHECK(Transform::parse("normalise:inception").normalisation(1)->mean == std::vector<double>{0.5});
  CHECK_FALSE(Transform::parse("crop:3").normalisation(3).has_value());
  CHECK_THROWS_WITH(Transform::parse("normalise:imagenet").normalisation(1),
                    "normalise:imagenet is for images of 3 channels, these have 1");
  for (const char* const text :
       {"blur", "resize", "resize:", "resize:0", "resize:-3", "resize:3:lanczos", "resize:9999999", "crop:3x",
        "crop:x3", "crop:3:4", "crop:3,", "normalise:x", "normalise:1", "normalise:0.5:0", "normalise:0.5:1:2",
        "normalise:nan:1", "normalise:imagenet,crop:3", "grey:1", "torchvision/resnet50"}) {
    INFO(text);
    CHECK_THROWS_AS(Transform::parse(text), UsageError);
  }
}

TEST_CASE("data sets are transformed, to the same bits for any number of threads", "[transform]") {
  const Dataset data = small_data(40, 4, 3);
  const Transform transform = Transform::parse("resize:9x7:bicubic,crop:5");
  const int threads = thread_count();
  set_thread_count(1);
  const Dataset one = data.transformed(transform);
  set_thread_count(3);
  const Dataset three = data.transformed(transform);
  set_thread_count(threads);
  CHECK(one.images().shape() == Shape{40, 5, 5, 3});
  CHECK(one.sha256() == three.sha256());
  CHECK(one.ids() == data.ids());
  CHECK(one.images().select(0, 7).to_vector<uint8_t>() ==
        transform.apply(data.images().select(0, 7)).to_vector<uint8_t>());
  CHECK(data.transformed({}).sha256() == data.sha256());
  CHECK_THROWS_WITH(data.transformed(Transform::parse("crop:3")),
                    "data set small: an image of 2x3 pixels is too small for crop:3");
  CHECK_THROWS_WITH(Dataset("f", data.images().to(DType::float32), {}, 0).transformed(transform),
                    Contains("a transform needs images uint8"));
}
