// A labelled set of images whose samples keep the ids they were published under.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "datasets/image_files.h"
#include "datasets/normalisation.h"
#include "datasets/transform.h"
#include "engine/tensor.h"

namespace fastntk {

/// Images, labels and ids. The id of a sample is its index in the data set as published, and it stays the same in any
/// subset. Copying a Dataset copies no pixels. Images come from memory, or from files, which are decoded when pixels
/// are asked for; whichever it is, and however many threads there are, the pixels are the same.
class Dataset {
 public:
  /// images: uint8, float32 or float64 [N, H, W, C]. labels: int64 [N] in [0, classes), or undefined if the samples
  /// have none. class_names: one per class, or none. The ids are 0 … N−1.
  Dataset(std::string name, const Tensor& images, const Tensor& labels, int64_t classes,
          std::vector<std::string> class_names = {});
  /// The same with images in files, one per label. They may differ in size as long as no pixels are asked for; see
  /// transformed().
  Dataset(std::string name, std::shared_ptr<const ImageFiles> files, const Tensor& labels, int64_t classes,
          std::vector<std::string> class_names = {});

  const std::string& name() const { return name_; }
  /// The number of samples N.
  int64_t size() const { return static_cast<int64_t>(ids_.size()); }
  /// [N, H, W, C]. Images in files are decoded at the first call, on all threads, and kept.
  const Tensor& images() const;
  /// The one size that all images have; an Error if they differ.
  ImageSize image_size() const;
  int64_t height() const { return image_size().height; }
  int64_t width() const { return image_size().width; }
  int64_t channels() const { return image_size().channels; }
  /// uint8 for images in files.
  DType dtype() const;
  /// Decodes images that are still in files, if they fit in this many bytes (0: whatever it takes). Others are decoded
  /// anew whenever they are asked for.
  void decode_within(size_t bytes) const;
  /// Calls f with images [n, H, W, C], one piece after the other until all were seen; pixels in files are not kept.
  void visit_images(const std::function<void(const Tensor& piece)>& f) const;
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

  /// Every image through the transform's steps (not its normalisation), which need uint8; images in files are
  /// transformed when they are decoded.
  Dataset transformed(const Transform& transform) const;
  /// The same samples under these ids, numbers from 0 on of which none appears twice.
  Dataset with_ids(std::vector<int64_t> ids) const;

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
  struct Encoded;
  void set_labels(const Tensor& labels);
  void check_positions(std::span<const int64_t> positions) const;
  // The images at these positions, once they are in memory; undefined while they are in files.
  Tensor in_memory() const;
  Tensor decode(std::span<const int64_t> positions) const;
  Tensor normalised(std::span<const int64_t> positions, const Tensor& source, const Normalisation& normalisation,
                    DType dtype) const;

  std::string name_;
  Tensor images_;                     // undefined if they come from files
  std::shared_ptr<Encoded> encoded_;  // null if they come from memory
  Tensor labels_;
  int64_t classes_ = 0;
  std::vector<std::string> class_names_;
  std::vector<int64_t> ids_;
  int64_t published_size_ = 0;
};

/// Mean and standard deviation of every channel over all pixels of a data set, uint8 pixels divided by 255. A constant
/// channel gets the standard deviation 1.
Normalisation measure_normalisation(const Dataset& data);

}  // namespace fastntk
