#include "datasets/idx.h"

#include <algorithm>
#include <array>
#include <utility>

#include "datasets/byte_reader.h"
#include "datasets/locate.h"

namespace fastntk {
namespace {

constexpr unsigned char type_unsigned_byte = 0x08;

uint32_t big_endian(const unsigned char* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

// The labels as int64; each must be below `classes` unless that is 0.
Tensor load_labels(const std::string& path, int64_t classes) {
  Tensor labels = load_idx_file(path, 1).to(DType::int64);
  const int64_t* const label = labels.data<int64_t>();
  for (int64_t i = 0; classes > 0 && i < labels.elements(); i++)
    require(label[i] < classes, "{}: sample {} has the label {}, but there are {} classes, 0-{}", path, i, label[i],
            classes, classes - 1);
  return labels;
}

// Grey images [N, H, W, 1], one for each label.
Tensor load_images(const std::string& path, const Tensor& labels, const std::string& labels_path) {
  const Tensor images = load_idx_file(path, 3);
  require(images.extent(0) == labels.extent(0), "{} has {} images, but {} has {} labels", path, images.extent(0),
          labels_path, labels.extent(0));
  return images.unsqueeze(3);
}

int64_t largest_label_plus_one(const Tensor& labels) {
  const int64_t* const label = labels.data<int64_t>();
  return labels.elements() == 0 ? 0 : 1 + *std::max_element(label, label + labels.elements());
}

const char* file_prefix(Part part) { return part == Part::train ? "train" : "t10k"; }

// The paths of images and labels of one of the data sets that have MNIST's file names.
std::vector<std::string> locate_mnist(const std::string& name, const std::string& torchvision_name,
                                      const std::string& published, const std::string& folder, Part part) {
  const std::string prefix = file_prefix(part);
  return locate({name,
                 {prefix + "-images-idx3-ubyte", prefix + "-labels-idx1-ubyte"},
                 {name, torchvision_name + "/raw"},
                 published},
                folder);
}

struct EmnistSplit {
  const char* name;
  int64_t first_label, classes;
  const char* characters;  // one per class
};
constexpr std::array<EmnistSplit, 6> emnist_splits{{
    {"byclass", 0, 62, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"},
    {"bymerge", 0, 47, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"},
    {"balanced", 0, 47, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"},
    {"letters", 1, 26, "abcdefghijklmnopqrstuvwxyz"},
    {"digits", 0, 10, "0123456789"},
    {"mnist", 0, 10, "0123456789"},
}};

}  // namespace

Tensor load_idx_file(const std::string& path, int rank) {
  ByteReader reader(path);
  std::array<unsigned char, 4 + 4 * max_rank> start{};
  const auto header = std::as_writable_bytes(std::span(start)).first(4 + 4 * static_cast<size_t>(rank));
  const size_t got = reader.read(header);
  require(got >= 4, "{}: the file ends inside its header (truncated?)", path);
  require(start[0] == 0 && start[1] == 0,
          "{}: not an idx file: it begins with the bytes {:02x} {:02x} {:02x} {:02x}, 00 00 08 {:02x} were expected",
          path, start[0], start[1], start[2], start[3], rank);
  require(start[2] == type_unsigned_byte,
          "{}: an idx file of unsigned bytes (type 08) was expected, it has the type {:02x}", path, start[2]);
  require(start[3] == rank, "{}: an idx file with {} axes was expected, it has {}", path, rank, start[3]);
  require(got == header.size(), "{}: the file ends inside its header (truncated?)", path);

  Shape shape;
  int64_t strides = 1;  // must not overflow either, also where an extent is 0
  bool fits = true;
  for (int i = 0; i < rank; i++) {
    shape.push_back(big_endian(&start[4 + 4 * static_cast<size_t>(i)]));
    fits = fits && !__builtin_mul_overflow(strides, std::max<int64_t>(shape[i], 1), &strides);
  }
  const int64_t most = reader.most_bytes() - static_cast<int64_t>(header.size());
  require(fits && shape.elements() <= most,
          "{}: the header promises {} bytes of data, more than the file can hold (truncated?)", path, shape.str());
  Tensor tensor(shape, DType::uint8);
  const size_t data = reader.read(mutable_bytes_of(tensor));
  require(data == tensor.bytes(), "{}: the header promises {} bytes of data, the file has {} (truncated?)", path,
          shape.str(), data);
  std::byte extra{};
  require(reader.read(std::span(&extra, 1)) == 0, "{}: bytes are left over after the {} that the header promises", path,
          shape.str());
  return tensor;
}

Dataset load_idx(const std::string& name, const std::string& images_path, const std::string& labels_path,
                 int64_t classes, std::vector<std::string> class_names) {
  const Tensor labels = load_labels(labels_path, classes);
  return Dataset(name, load_images(images_path, labels, labels_path), labels,
                 classes > 0 ? classes : largest_label_plus_one(labels), std::move(class_names));
}

Dataset load_fashion_mnist(const std::string& folder, Part part) {
  const auto files =
      locate_mnist("fashion-mnist", "FashionMNIST", "https://github.com/zalandoresearch/fashion-mnist", folder, part);
  return load_idx(
      "fashion-mnist", files[0], files[1], 10,
      {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"});
}

Dataset load_mnist(const std::string& folder, Part part) {
  const auto files = locate_mnist("mnist", "MNIST", "http://yann.lecun.com/exdb/mnist", folder, part);
  return load_idx("mnist", files[0], files[1], 10);
}

Dataset load_kmnist(const std::string& folder, Part part) {
  const auto files = locate_mnist("kmnist", "KMNIST", "https://github.com/rois-codh/kmnist", folder, part);
  return load_idx("kmnist", files[0], files[1], 10, {"o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"});
}

Dataset load_emnist(const std::string& folder, Part part, const std::string& split) {
  const auto chosen =
      std::find_if(emnist_splits.begin(), emnist_splits.end(), [&](const EmnistSplit& s) { return s.name == split; });
  require_usage(
      chosen != emnist_splits.end(),
      "EMNIST has the splits byclass, bymerge, balanced, letters, digits and mnist (emnist:letters), not \"{}\"",
      split);
  const std::string prefix = fmt::format("emnist-{}-{}", split, name_of(part));
  const auto files = locate({"emnist",
                             {prefix + "-images-idx3-ubyte", prefix + "-labels-idx1-ubyte"},
                             {"emnist", "gzip", "EMNIST/raw"},
                             "https://www.nist.gov/itl/products-and-services/emnist-dataset"},
                            folder);
  const int64_t first = chosen->first_label;
  Tensor labels = load_labels(files[1], chosen->classes + first);
  int64_t* const label = labels.mutable_data<int64_t>();
  for (int64_t i = 0; i < labels.elements(); i++) {
    require(label[i] >= first, "{}: sample {} has the label {}, the first is {}", files[1], i, label[i], first);
    label[i] -= first;
  }
  const Tensor images = load_images(files[0], labels, files[1]);
  std::vector<std::string> names;
  for (const char character : std::string(chosen->characters)) names.emplace_back(1, character);
  return Dataset("emnist-" + split, images.permute({0, 2, 1, 3}), labels, chosen->classes, names);
}

}  // namespace fastntk
