#include "datasets/cifar.h"

#include <utility>

#include "datasets/byte_reader.h"
#include "datasets/locate.h"
#include "engine/parallel.h"

namespace fastntk {
namespace {

constexpr int64_t side = 32, pixels = side * side, channels = 3;
constexpr const char* published = "https://www.cs.toronto.edu/~kriz/cifar.html, the binary version";

// [channel][pixel] → [pixel][channel]
void interleave(const std::byte* planes, uint8_t* out) {
  for (int64_t c = 0; c < channels; c++)
    for (int64_t p = 0; p < pixels; p++) out[p * channels + c] = static_cast<uint8_t>(planes[c * pixels + p]);
}

}  // namespace

Dataset load_cifar_files(const std::string& name, const std::vector<std::string>& paths, const CifarLabels& labels,
                         std::vector<std::string> class_names) {
  const int64_t record = labels.bytes + channels * pixels;
  std::vector<std::byte> bytes;
  std::vector<int64_t> classes;
  for (const std::string& path : paths) {
    const size_t start = bytes.size();
    ByteReader(path).append_rest(bytes);
    const auto size = static_cast<int64_t>(bytes.size() - start);
    require(size > 0 && size % record == 0, "{}: {} bytes, which are not records of {} ({} and 32x32x3 pixels)", path,
            size, record, labels.bytes == 1 ? "a label" : "two labels");
    for (int64_t i = 0; i < size / record; i++) {
      const std::byte label = bytes[start + static_cast<size_t>(i * record + labels.which)];
      classes.push_back(static_cast<int64_t>(label));
      require(classes.back() < labels.classes, "{}: record {} has the label {}, but there are {} classes, 0-{}", path,
              i, classes.back(), labels.classes, labels.classes - 1);
    }
  }
  const auto count = static_cast<int64_t>(classes.size());
  Tensor images({count, side, side, channels}, DType::uint8);
  uint8_t* const out = images.mutable_data<uint8_t>();
  parallel_ranges(count, 64, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      interleave(bytes.data() + i * record + labels.bytes, out + i * pixels * channels);
  });
  return Dataset(name, images, Tensor::from<int64_t>({count}, classes), labels.classes, std::move(class_names));
}

Dataset load_cifar10(const std::string& folder, Part part) {
  const std::vector<std::string> names =
      part == Part::train ? std::vector<std::string>{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                                     "data_batch_4.bin", "data_batch_5.bin"}
                          : std::vector<std::string>{"test_batch.bin"};
  return load_cifar_files("cifar-10",
                          locate({"cifar-10", names, {"cifar-10", "cifar-10-batches-bin"}, published}, folder),
                          {.bytes = 1, .which = 0, .classes = 10},
                          {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"});
}

Dataset load_cifar100(const std::string& folder, Part part, bool superclasses) {
  const std::string file = std::string(name_of(part)) + ".bin";
  return load_cifar_files("cifar-100",
                          locate({"cifar-100", {file}, {"cifar-100", "cifar-100-binary"}, published}, folder),
                          {.bytes = 2, .which = superclasses ? 0 : 1, .classes = superclasses ? 20 : 100});
}

}  // namespace fastntk
