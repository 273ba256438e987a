// The idx format of MNIST and its kin: unsigned bytes after a header that gives the extents, plain or compressed by
// gzip. http://yann.lecun.com/exdb/mnist
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace fastntk {

/// The two parts a data set is published in.
enum class Part : uint8_t { train, test };
constexpr const char* name_of(Part part) { return part == Part::train ? "train" : "test"; }

/// One idx file of unsigned bytes with `rank` axes: uint8. Whatever is wrong with the file is an Error that names it.
Tensor load_idx_file(const std::string& path, int rank);

/// Grey images [N, H, W] from one file, labels [N] from another. `classes` 0 means: as many as the largest label tells.
Dataset load_idx(const std::string& name, const std::string& images_path, const std::string& labels_path,
                 int64_t classes = 0, std::vector<std::string> class_names = {});

/// Fashion-MNIST, 60,000 and 10,000 images of 28×28 in 10 classes. `folder` is where its four files are (or has a
/// subfolder fashion-mnist with them); if empty, the folder in $FASTNTK_DATA and that of Debian's package
/// dataset-fashion-mnist are searched. If they are not found, the Error names the files and the places.
Dataset load_fashion_mnist(const std::string& folder, Part part);
/// MNIST, whose files have the same names. Debian has no package of it.
Dataset load_mnist(const std::string& folder, Part part);

}  // namespace fastntk
