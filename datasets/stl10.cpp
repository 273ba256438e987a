#include "datasets/stl10.h"

#include "datasets/byte_reader.h"
#include "datasets/column_planes.h"
#include "datasets/locate.h"

namespace fastntk {

Dataset load_stl10_files(const std::string& images, const std::string& labels) {
  constexpr int64_t side = 96, channels = 3, classes = 10, pixels = side * side;
  std::vector<std::byte> planes, bytes;
  ByteReader(images).append_rest(planes);
  ByteReader(labels).append_rest(bytes);
  const auto size = static_cast<int64_t>(planes.size()), count = size / (channels * pixels);
  require(size > 0 && size % (channels * pixels) == 0, "{}: {} bytes, which are not images of {} (96x96x3)", images,
          size, channels * pixels);
  require(static_cast<int64_t>(bytes.size()) == count, "{}: {} labels, but {} has {} images", labels, bytes.size(),
          images, count);
  std::vector<int64_t> classes_of(bytes.size());
  for (size_t i = 0; i < bytes.size(); i++) {
    const auto label = static_cast<int64_t>(bytes[i]);
    require(label >= 1 && label <= classes, "{}: sample {} has the label {}, not 1-10", labels, i, label);
    classes_of[i] = label - 1;
  }
  const Tensor out = images_from_column_planes(reinterpret_cast<const uint8_t*>(planes.data()), count, side, channels);
  return Dataset("stl-10", out, Tensor::from<int64_t>({count}, classes_of), classes,
                 {"airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"});
}

Dataset load_stl10(const std::string& folder, Part part) {
  const std::string name = name_of(part);
  const auto files = locate({.dataset = "stl-10",
                             .names = {name + "_X.bin", name + "_y.bin"},
                             .subfolders = {"stl-10", "stl10_binary"},
                             .published = "https://cs.stanford.edu/~acoates/stl10, the binary version"},
                            folder);
  return load_stl10_files(files[0], files[1]);
}

}  // namespace fastntk
