// A labelled set of images whose samples keep the ids they were published under.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace fastntk {

/// What becomes of pixel x in channel c before a model sees it: (x − mean[c]) / stddev[c]. Pixels stored as uint8 are
/// first divided by 255; floating-point pixels are taken as they are.
struct Normalisation {
  std::vector<double> mean, stddev;  ///< one number per channel
  /// mean 0 and stddev 1.
  static Normalisation identity(int64_t channels);
};

/// Images, labels and ids. The id of a sample is its index in the data set as published, and it stays the same in any
/// subset. Copying a Dataset copies no pixels.
class Dataset {
 public:
  /// images: uint8, float32 or float64 [N, H, W, C]. labels: int64 [N] in [0, classes), or undefined if the samples
  /// have none. class_names: one per class, or none. The ids are 0 … N−1.
  Dataset(std::string name, const Tensor& images, const Tensor& labels, int64_t classes,
          std::vector<std::string> class_names = {});

  const std::string& name() const { return name_; }
  /// The number of samples N.
  int64_t size() const { return images_.extent(0); }
  /// [N, H, W, C]
  const Tensor& images() const { return images_; }
  int64_t height() const { return images_.extent(1); }
  int64_t width() const { return images_.extent(2); }
  int64_t channels() const { return images_.extent(3); }
  bool has_labels() const { return labels_.defined(); }
  /// int64 [N]; an Error if there are none.
  const Tensor& labels() const;
  int64_t classes() const { return classes_; }
  /// "9 (Ankle boot)", or the number alone where classes have no names.
  std::string class_name(int64_t label) const;
  /// The number of samples of each class.
  std::vector<int64_t> class_counts() const;

  const std::vector<int64_t>& ids() const { return ids_; }
  /// The number of samples of the data set as published: every id is below it.
  int64_t published_size() const { return published_size_; }
  /// Where the samples with these ids stand; an Error naming the first id that is not here.
  std::vector<int64_t> positions_of(std::span<const int64_t> ids) const;

  /// The samples at these positions, in this order; no position may appear twice.
  Dataset subset(std::span<const int64_t> positions) const;
  Dataset subset_by_id(std::span<const int64_t> ids) const { return subset(positions_of(ids)); }

  /// The images at these positions, normalised: float32 or float64 [n, H, W, C]. Computed in float64, rounded once.
  Tensor images_as_float(std::span<const int64_t> positions, const Normalisation& normalisation,
                         DType dtype = DType::float32) const;
  /// int64 [n]
  Tensor labels_at(std::span<const int64_t> positions) const;

  /// Hash of the content: type, shape and pixels of the images, the labels, the ids, in this order. The names of the
  /// data set and of its classes do not enter.
  std::string sha256() const;
  /// Hash of the ids alone, as little-endian int64.
  std::string ids_sha256() const;

 private:
  void check_positions(std::span<const int64_t> positions) const;

  std::string name_;
  Tensor images_, labels_;
  int64_t classes_;
  std::vector<std::string> class_names_;
  std::vector<int64_t> ids_;
  int64_t published_size_;
};

/// Mean and standard deviation of every channel over all pixels of a data set, uint8 pixels divided by 255. A constant
/// channel gets the standard deviation 1.
Normalisation measure_normalisation(const Dataset& data);

}  // namespace fastntk
