#include "datasets/dataset.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "engine/file.h"
#include "engine/parallel.h"
#include "engine/sha256.h"

namespace fastntk {
namespace {

constexpr double largest_byte = 255;

// The rows of `source` (along its first axis) at these positions.
Tensor gather_rows(const Tensor& source, std::span<const int64_t> positions) {
  Shape shape = source.shape();
  shape[0] = static_cast<int64_t>(positions.size());
  Tensor out(shape, source.dtype());
  if (out.elements() == 0) return out;
  const size_t row = out.bytes() / positions.size();
  const std::byte* const from = bytes_of(source).data();
  std::byte* const to = mutable_bytes_of(out).data();
  for (size_t i = 0; i < positions.size(); i++)
    std::memcpy(to + i * row, from + static_cast<size_t>(positions[i]) * row, row);
  return out;
}

// How often each byte occurs in each channel: [C][256].
std::vector<std::array<int64_t, 256>> histograms(const Tensor& images) {
  const auto channels = static_cast<size_t>(images.extent(-1));
  std::vector<std::array<int64_t, 256>> counts(channels);
  const uint8_t* x = images.data<uint8_t>();
  for (int64_t pixel = images.elements() / images.extent(-1); pixel > 0; pixel--)
    for (size_t c = 0; c < channels; c++) counts[c][*x++]++;
  return counts;
}

}  // namespace

Normalisation Normalisation::identity(int64_t channels) {
  const auto count = static_cast<size_t>(channels);
  return {std::vector<double>(count, 0), std::vector<double>(count, 1)};
}

Dataset::Dataset(std::string name, const Tensor& images, const Tensor& labels, int64_t classes,
                 std::vector<std::string> class_names)
    : name_(std::move(name)), classes_(classes), class_names_(std::move(class_names)) {
  require(images.defined() && images.rank() == 4 && images.dtype() != DType::int64,
          "data set {}: images must be uint8, float32 or float64 [N, H, W, C], got {}", name_,
          images.defined() ? images.describe() : "nothing");
  require(images.extent(1) > 0 && images.extent(2) > 0 && images.extent(3) > 0,
          "data set {}: images of shape {} have no pixels", name_, images.shape().str());
  require(classes_ >= 0 && (class_names_.empty() || static_cast<int64_t>(class_names_.size()) == classes_),
          "data set {}: {} classes with {} names", name_, classes_, class_names_.size());
  images_ = images.contiguous();
  published_size_ = size();
  ids_.resize(static_cast<size_t>(size()));
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
  result.images_ = gather_rows(images_, positions);
  if (has_labels()) result.labels_ = gather_rows(labels_, positions);
  return result;
}

Tensor Dataset::images_as_float(std::span<const int64_t> positions, const Normalisation& normalisation,
                                DType dtype) const {
  const std::vector<double>&mean = normalisation.mean, &stddev = normalisation.stddev;
  const auto depth = static_cast<size_t>(channels());
  require(mean.size() == depth && stddev.size() == depth,
          "the data set {} has {} channels, the normalisation has {} means and {} standard deviations", name_, depth,
          mean.size(), stddev.size());
  for (const double s : stddev)
    require(s > 0 && std::isfinite(s), "a normalisation needs standard deviations above 0, got {}", s);
  check_positions(positions);
  const auto count = static_cast<int64_t>(positions.size());
  Tensor out({count, height(), width(), channels()}, dtype);
  const size_t row = static_cast<size_t>(height() * width()) * depth;

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
    const auto normalised = [&](double x, size_t c) { return static_cast<Out>((x - mean[c]) / stddev[c]); };
    for_any(images_.dtype(), [&](auto stored) {
      using In = decltype(stored);
      if constexpr (std::is_same_v<In, uint8_t>) {
        std::vector<std::array<Out, 256>> table(depth);
        for (size_t c = 0; c < depth; c++)
          for (size_t x = 0; x < 256; x++) table[c][x] = normalised(static_cast<double>(x) / largest_byte, c);
        fill(images_.data<In>(), [&](In x, size_t c) { return table[c][x]; });
      } else {
        fill(images_.data<In>(), [&](In x, size_t c) { return normalised(static_cast<double>(x), c); });
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
  hash.add("images " + images_.describe() + "\n").add(bytes_of(images_));
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
  if (data.images().dtype() == DType::uint8) {
    const auto counts = histograms(data.images());
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
