#include "datasets/idx.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <utility>

#include "datasets/byte_reader.h"

namespace fastntk {
namespace {

constexpr unsigned char type_unsigned_byte = 0x08;
constexpr const char* debian_folder = "/usr/share/datasets/fashion-mnist";

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

int64_t largest_label_plus_one(const Tensor& labels) {
  const int64_t* const label = labels.data<int64_t>();
  return labels.elements() == 0 ? 0 : 1 + *std::max_element(label, label + labels.elements());
}

const char* file_prefix(Part part) { return part == Part::train ? "train" : "t10k"; }

struct Files {
  std::string images, labels;
};

// The files of one part, compressed or not, if this folder has both.
std::optional<Files> files_in(const std::string& folder, Part part) {
  const auto find = [&](const char* name) -> std::optional<std::string> {
    for (const char* suffix : {"", ".gz"})
      if (std::string path = folder + "/" + file_prefix(part) + name + suffix; file_exists(path)) return path;
    return std::nullopt;
  };
  const auto images = find("-images-idx3-ubyte"), labels = find("-labels-idx1-ubyte");
  if (!images || !labels) return std::nullopt;
  return Files{*images, *labels};
}

// A folder that the user named is the only place looked at: other data must not be taken in its stead.
Files find_files(const std::string& name, const std::string& folder, Part part, const char* installed_folder) {
  std::vector<std::string> places;
  const auto add = [&](const std::string& place) {
    places.push_back(place);
    places.push_back(place + "/" + name);
  };
  const char* const environment = std::getenv("FASTNTK_DATA");
  if (!folder.empty()) {
    add(folder);
  } else {
    if (environment && *environment) add(environment);
    if (installed_folder) places.emplace_back(installed_folder);
  }
  for (const std::string& place : places)
    if (auto files = files_in(place, part)) return *files;
  fail(
      "the data set {} needs {}-images-idx3-ubyte and {}-labels-idx1-ubyte, plain or with .gz, in one folder; looked "
      "in {}{}",
      name, file_prefix(part), file_prefix(part),
      places.empty() ? "no folder" : fmt::format("{}", fmt::join(places, ", ")),
      folder.empty() ? "; --data or FASTNTK_DATA can name another" : "");
}

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
  const Tensor images = load_idx_file(images_path, 3);
  require(images.extent(0) == labels.extent(0), "{} has {} images, but {} has {} labels", images_path, images.extent(0),
          labels_path, labels.extent(0));
  return Dataset(name, images.unsqueeze(3), labels, classes > 0 ? classes : largest_label_plus_one(labels),
                 std::move(class_names));
}

Dataset load_fashion_mnist(const std::string& folder, Part part) {
  const Files files = find_files("fashion-mnist", folder, part, debian_folder);
  return load_idx(
      "fashion-mnist", files.images, files.labels, 10,
      {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"});
}

Dataset load_mnist(const std::string& folder, Part part) {
  const Files files = find_files("mnist", folder, part, nullptr);
  return load_idx("mnist", files.images, files.labels, 10);
}

}  // namespace fastntk
