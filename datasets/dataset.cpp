#include "datasets/dataset.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>
#include <optional>
#include <unordered_map>
#include <utility>

#include "engine/file.h"
#include "engine/parallel.h"
#include "engine/progress.h"
#include "engine/sha256.h"

namespace fastntk {
namespace {

constexpr double largest_byte = 255;

// How often each byte occurs in each channel: [C][256].
using Histograms = std::vector<std::array<int64_t, 256>>;
void add_to(Histograms& counts, const Tensor& images) {
  const size_t channels = counts.size();
  const uint8_t* x = images.data<uint8_t>();
  for (int64_t pixel = images.elements() / images.extent(-1); pixel > 0; pixel--)
    for (size_t c = 0; c < channels; c++) counts[c][*x++]++;
}

// Images that are decoded but not kept are decoded this many at a time.
constexpr size_t piece_size = 64;

}  // namespace

// Images in files. Data sets that are copies of each other share what was found out.
struct Dataset::Encoded {
  std::shared_ptr<const ImageFiles> files;
  std::vector<int64_t> indices;  // in files, of each sample
  Transform transform;
  std::mutex mutex;  // of what follows
  std::optional<ImageSize> size;
  Tensor decoded;

  ImageSize size_of(size_t position) const {
    return transform.output(files->size(indices[position]), files->path(indices[position]));
  }
};

Dataset::Dataset(std::string name, const Tensor& images, const Tensor& labels, int64_t classes,
                 std::vector<std::string> class_names)
    : name_(std::move(name)), classes_(classes), class_names_(std::move(class_names)) {
  require(images.defined() && images.rank() == 4 && images.dtype() != DType::int64,
          "data set {}: images must be uint8, float32 or float64 [N, H, W, C], got {}", name_,
          images.defined() ? images.describe() : "nothing");
  require(images.extent(1) > 0 && images.extent(2) > 0 && images.extent(3) > 0,
          "data set {}: images of shape {} have no pixels", name_, images.shape().str());
  images_ = images.contiguous();
  ids_.resize(static_cast<size_t>(images.extent(0)));
  set_labels(labels);
}

Dataset::Dataset(std::string name, std::shared_ptr<const ImageFiles> files, const Tensor& labels, int64_t classes,
                 std::vector<std::string> class_names)
    : name_(std::move(name)), classes_(classes), class_names_(std::move(class_names)) {
  ids_.resize(static_cast<size_t>(files->count()));
  set_labels(labels);
  encoded_ = std::make_shared<Encoded>();
  encoded_->files = std::move(files);
  encoded_->indices = ids_;
}

// Ids, too, which are as many as there are samples.
void Dataset::set_labels(const Tensor& labels) {
  require(classes_ >= 0 && (class_names_.empty() || static_cast<int64_t>(class_names_.size()) == classes_),
          "data set {}: {} classes with {} names", name_, classes_, class_names_.size());
  published_size_ = size();
  std::iota(ids_.begin(), ids_.end(), int64_t{0});
  if (!labels.defined()) return;
  require(labels.dtype() == DType::int64 && labels.shape() == Shape{size()},
          "data set {}: {} images need labels int64 [{}], got {}", name_, size(), size(), labels.describe());
  labels_ = labels.contiguous();
  const int64_t* const label = labels_.data<int64_t>();
  for (int64_t i = 0; i < size(); i++)
    require(label[i] >= 0 && label[i] < classes_, "data set {}: sample {} has the label {}, there are {} classes",
            name_, i, label[i], classes_);
}

ImageSize Dataset::image_size() const {
  if (!encoded_) return {images_.extent(1), images_.extent(2), images_.extent(3)};
  const std::lock_guard lock(encoded_->mutex);
  if (encoded_->size) return *encoded_->size;
  require(size() > 0, "the data set {} is empty: its images have no size", name_);
  const ImageSize first = encoded_->size_of(0);
  for (size_t i = 1; i < ids_.size(); i++) {
    const ImageSize other = encoded_->size_of(i);
    require(other == first,
            "the images of {} differ in size, {} in {} and {} in {}: a transform must bring them to one", name_,
            first.str(), encoded_->files->path(encoded_->indices[0]), other.str(),
            encoded_->files->path(encoded_->indices[i]));
  }
  encoded_->size = first;
  return first;
}

DType Dataset::dtype() const { return encoded_ ? DType::uint8 : images_.dtype(); }

const Tensor& Dataset::images() const {
  if (!encoded_) return images_;
  image_size();
  const std::lock_guard lock(encoded_->mutex);
  if (!encoded_->decoded.defined()) {
    std::vector<int64_t> all(ids_.size());
    std::iota(all.begin(), all.end(), int64_t{0});
    encoded_->decoded = decode(all);
  }
  return encoded_->decoded;
}

void Dataset::decode_within(size_t bytes) const {
  if (!encoded_ || size() == 0) return;
  const ImageSize one = image_size();
  if (bytes == 0 || static_cast<size_t>(size() * one.height * one.width * one.channels) <= bytes) images();
}

Tensor Dataset::in_memory() const {
  if (!encoded_) return images_;
  const std::lock_guard lock(encoded_->mutex);
  return encoded_->decoded;
}

// The size is known to be one.
Tensor Dataset::decode(std::span<const int64_t> positions) const {
  const ImageSize& one = *encoded_->size;
  Tensor out({static_cast<int64_t>(positions.size()), one.height, one.width, one.channels}, DType::uint8);
  uint8_t* const to = out.mutable_data<uint8_t>();
  const int64_t row = one.height * one.width * one.channels;
  std::optional<Progress> progress;
  if (positions.size() > piece_size) progress.emplace("decode images", out.extent(0), "images");
  parallel_for(out.extent(0), [&](int64_t i) {
    check_interrupt();
    const int64_t index = encoded_->indices[static_cast<size_t>(positions[static_cast<size_t>(i)])];
    const Tensor image = encoded_->transform.apply(encoded_->files->decode(index));
    std::memcpy(to + i * row, image.data<uint8_t>(), static_cast<size_t>(row));
    if (progress) progress->advance(1);
  });
  return out;
}

void Dataset::visit_images(const std::function<void(const Tensor& piece)>& f) const {
  if (const Tensor all = in_memory(); all.defined()) {
    f(all);
    return;
  }
  if (size() > 0) image_size();
  for (size_t first = 0; first < ids_.size(); first += piece_size) {
    std::vector<int64_t> positions(std::min(piece_size, ids_.size() - first));
    std::iota(positions.begin(), positions.end(), static_cast<int64_t>(first));
    f(decode(positions));
  }
}

Dataset Dataset::transformed(const Transform& transform) const {
  if (!transform.changes_pixels()) return *this;
  Dataset result = *this;
  if (encoded_) {
    result.encoded_ = std::make_shared<Encoded>();
    result.encoded_->files = encoded_->files;
    result.encoded_->indices = encoded_->indices;
    result.encoded_->transform = encoded_->transform.then(transform);
    return result;
  }
  require(images_.dtype() == DType::uint8 && (channels() == 1 || channels() == 3),
          "data set {}: a transform needs images uint8 of 1 or 3 channels, these are {}", name_, images_.describe());
  const ImageSize one = transform.output(image_size(), "data set " + name_);
  Tensor out({size(), one.height, one.width, one.channels}, DType::uint8);
  uint8_t* const to = out.mutable_data<uint8_t>();
  const int64_t row = one.height * one.width * one.channels;
  parallel_ranges(size(), 16, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++) {
      const Tensor image = transform.apply(images_.select(0, i));
      std::memcpy(to + i * row, image.data<uint8_t>(), static_cast<size_t>(row));
    }
  });
  result.images_ = out;
  return result;
}

Dataset Dataset::with_ids(std::vector<int64_t> ids) const {
  require(ids.size() == ids_.size(), "data set {}: {} ids for {} samples", name_, ids.size(), size());
  std::vector<int64_t> sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  require(twice == sorted.end(), "data set {}: the id {} appears twice", name_, twice == sorted.end() ? 0 : *twice);
  require(sorted.empty() || (sorted.front() >= 0 && sorted.back() < INT64_MAX),
          "data set {}: the id {} is out of range", name_,
          sorted.empty()       ? 0
          : sorted.front() < 0 ? sorted.front()
                               : sorted.back());
  Dataset result = *this;
  result.published_size_ = sorted.empty() ? 0 : sorted.back() + 1;
  result.ids_ = std::move(ids);
  return result;
}

const Tensor& Dataset::labels() const {
  require(has_labels(), "the data set {} has no labels", name_);
  return labels_;
}

std::string Dataset::class_name(int64_t label) const {
  require(label >= 0 && label < classes_, "the data set {} has {} classes, there is no class {}", name_, classes_,
          label);
  if (class_names_.empty()) return std::to_string(label);
  return fmt::format("{} ({})", label, class_names_[static_cast<size_t>(label)]);
}

std::vector<int64_t> Dataset::class_counts() const {
  std::vector<int64_t> counts(static_cast<size_t>(classes_));
  const int64_t* const label = labels().data<int64_t>();
  for (int64_t i = 0; i < size(); i++) counts[static_cast<size_t>(label[i])]++;
  return counts;
}

std::vector<int64_t> Dataset::positions_of(std::span<const int64_t> ids) const {
  std::unordered_map<int64_t, int64_t> position;
  position.reserve(ids_.size());
  for (size_t i = 0; i < ids_.size(); i++) position[ids_[i]] = static_cast<int64_t>(i);
  std::vector<int64_t> result;
  result.reserve(ids.size());
  for (const int64_t id : ids) {
    const auto at = position.find(id);
    require(at != position.end(), "the data set {} has no sample with the id {} among its {}", name_, id, size());
    result.push_back(at->second);
  }
  return result;
}

void Dataset::check_positions(std::span<const int64_t> positions) const {
  for (const int64_t p : positions)
    require(p >= 0 && p < size(), "position {} of the data set {}, which has {} samples", p, name_, size());
}

Dataset Dataset::subset(std::span<const int64_t> positions) const {
  check_positions(positions);
  std::vector<bool> taken(static_cast<size_t>(size()));
  Dataset result = *this;
  result.ids_.clear();
  result.ids_.reserve(positions.size());
  for (const int64_t p : positions) {
    require(!taken[static_cast<size_t>(p)], "position {} of the data set {} was asked for twice", p, name_);
    taken[static_cast<size_t>(p)] = true;
    result.ids_.push_back(ids_[static_cast<size_t>(p)]);
  }
  if (const Tensor all = in_memory(); all.defined()) {
    result.images_ = gather_rows(all, positions);
    result.encoded_ = nullptr;
  } else {
    result.encoded_ = std::make_shared<Encoded>();
    result.encoded_->files = encoded_->files;
    result.encoded_->transform = encoded_->transform;
    for (const int64_t p : positions) result.encoded_->indices.push_back(encoded_->indices[static_cast<size_t>(p)]);
  }
  if (has_labels()) result.labels_ = gather_rows(labels_, positions);
  return result;
}

Tensor Dataset::images_as_float(std::span<const int64_t> positions, const Normalisation& normalisation,
                                DType dtype) const {
  check_positions(positions);
  if (const Tensor all = in_memory(); all.defined()) return normalised(positions, all, normalisation, dtype);
  const ImageSize one = image_size();
  Tensor out({static_cast<int64_t>(positions.size()), one.height, one.width, one.channels}, dtype);
  std::vector<int64_t> rows(piece_size);
  std::iota(rows.begin(), rows.end(), int64_t{0});
  for (size_t first = 0; first < positions.size(); first += piece_size) {
    const size_t count = std::min(piece_size, positions.size() - first);
    const Tensor piece = decode(positions.subspan(first, count));
    out.slice(0, static_cast<int64_t>(first), static_cast<int64_t>(first + count))
        .copy_from(normalised(std::span(rows).first(count), piece, normalisation, dtype));
  }
  return out;
}

// The images of `source` at these positions.
Tensor Dataset::normalised(std::span<const int64_t> positions, const Tensor& source, const Normalisation& normalisation,
                           DType dtype) const {
  const std::vector<double>&mean = normalisation.mean, &stddev = normalisation.stddev;
  const auto depth = static_cast<size_t>(source.extent(3));
  require(mean.size() == depth && stddev.size() == depth,
          "the data set {} has {} channels, the normalisation has {} means and {} standard deviations", name_, depth,
          mean.size(), stddev.size());
  for (const double s : stddev)
    require(s > 0 && std::isfinite(s), "a normalisation needs standard deviations above 0, got {}", s);
  const auto count = static_cast<int64_t>(positions.size());
  Tensor out({count, source.extent(1), source.extent(2), source.extent(3)}, dtype);
  const size_t row = static_cast<size_t>(source.extent(1) * source.extent(2)) * depth;

  for_floating(dtype, "images_as_float", [&](auto zero) {
    using Out = decltype(zero);
    Out* const to = out.mutable_data<Out>();
    // Fills every image with value(pixel, channel).
    const auto fill = [&]<class In>(const In* from, const auto& value) {
      parallel_ranges(count, 16, [&](int64_t first, int64_t last) {
        for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); i++) {
          const In* const x = from + static_cast<size_t>(positions[i]) * row;
          Out* const y = to + i * row;
          for (size_t at = 0; at < row; at += depth)
            for (size_t c = 0; c < depth; c++) y[at + c] = value(x[at + c], c);
        }
      });
    };
    const auto shifted = [&](double x, size_t c) { return static_cast<Out>((x - mean[c]) / stddev[c]); };
    for_any(source.dtype(), [&](auto stored) {
      using In = decltype(stored);
      if constexpr (std::is_same_v<In, uint8_t>) {
        std::vector<std::array<Out, 256>> table(depth);
        for (size_t c = 0; c < depth; c++)
          for (size_t x = 0; x < 256; x++) table[c][x] = shifted(static_cast<double>(x) / largest_byte, c);
        fill(source.data<In>(), [&](In x, size_t c) { return table[c][x]; });
      } else {
        fill(source.data<In>(), [&](In x, size_t c) { return shifted(static_cast<double>(x), c); });
      }
    });
  });
  return out;
}

Tensor Dataset::labels_at(std::span<const int64_t> positions) const {
  check_positions(positions);
  return gather_rows(labels(), positions);
}

std::string Dataset::sha256() const {
  Sha256 hash;
  const ImageSize one = size() || !encoded_ ? image_size() : ImageSize{};
  const Shape shape{size(), one.height, one.width, one.channels};
  hash.add(fmt::format("images {} {}\n", fastntk::name_of(dtype()), shape.str()));
  visit_images([&](const Tensor& piece) { hash.add(bytes_of(piece)); });
  if (has_labels())
    hash.add("labels " + labels_.describe() + "\n").add(bytes_of(labels_));
  else
    hash.add("no labels\n");
  hash.add("ids\n").add(std::as_bytes(std::span(ids_)));
  return hash.hex();
}

std::string Dataset::ids_sha256() const { return fastntk::sha256(std::as_bytes(std::span(ids_))); }

Normalisation measure_normalisation(const Dataset& data) {
  require(data.size() > 0, "the data set {} is empty: its pixels have no mean", data.name());
  const auto depth = static_cast<size_t>(data.channels());
  const auto count = static_cast<double>(data.size() * data.height() * data.width());
  Normalisation result = Normalisation::identity(data.channels());
  std::vector<double> variance(depth, 0);
  if (data.dtype() == DType::uint8) {
    Histograms counts(depth);
    data.visit_images([&](const Tensor& piece) { add_to(counts, piece); });
    for (size_t c = 0; c < depth; c++) {
      double sum = 0;  // of integers, hence exact
      for (size_t x = 0; x < 256; x++) sum += static_cast<double>(counts[c][x]) * static_cast<double>(x);
      result.mean[c] = sum / count / largest_byte;
      for (size_t x = 0; x < 256; x++) {
        const double d = static_cast<double>(x) / largest_byte - result.mean[c];
        variance[c] += static_cast<double>(counts[c][x]) * d * d / count;
      }
    }
  } else {
    for_floating(data.images().dtype(), "measure_normalisation", [&](auto zero) {
      const auto* const x = data.images().data<decltype(zero)>();
      const auto elements = static_cast<size_t>(data.images().elements());
      for (size_t i = 0; i < elements; i++) result.mean[i % depth] += static_cast<double>(x[i]) / count;
      for (size_t i = 0; i < elements; i++) {
        const double d = static_cast<double>(x[i]) - result.mean[i % depth];
        variance[i % depth] += d * d / count;
      }
    });
  }
  for (size_t c = 0; c < depth; c++)
    if (variance[c] > 0) result.stddev[c] = std::sqrt(variance[c]);
  return result;
}

}  // namespace fastntk
